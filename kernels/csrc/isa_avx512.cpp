// SPDX-License-Identifier: MIT
#define TS_ISA avx512
#define TS_SIMD "simd/avx512.h"
#define TS_TABLE kAvx512
#define TS_NAME "avx512"
#include "isa.h"
