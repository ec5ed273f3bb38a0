// SPDX-License-Identifier: MIT
#define TS_ISA avx512bf16
#define TS_SIMD "simd/avx512.h"
#define TS_TABLE kAvx512Bf16
#define TS_NAME "avx512bf16"
#define TS_BF16_DOT
#include "isa.h"
