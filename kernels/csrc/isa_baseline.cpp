// SPDX-License-Identifier: MIT
#define TS_ISA baseline
#define TS_SIMD "simd/baseline.h"
#define TS_TABLE kBaseline
#define TS_NAME "baseline"
#include "isa.h"
