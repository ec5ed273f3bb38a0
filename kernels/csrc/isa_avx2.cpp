// SPDX-License-Identifier: MIT
#define TS_ISA avx2
#define TS_SIMD "simd/avx2.h"
#define TS_TABLE kAvx2
#define TS_NAME "avx2"
#include "isa.h"
