// SPDX-License-Identifier: MIT
//
// One instruction set's copy of every kernel. isa_<name>.cpp defines TS_ISA (a namespace),
// TS_SIMD (the header with its vectors) and TS_TABLE, and includes this file.
//
// Everything lives in namespace ts::TS_ISA and nothing here calls an inline function of the
// standard library: the linker keeps one copy of such a function, and it could be the AVX-512 one.

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <bit>
#include <cstdint>

#include "kernel_table.h"
#include "thread_pool.h"

#define TS_INLINE __attribute__((always_inline)) inline
#define TS_LAMBDA_INLINE __attribute__((always_inline))

namespace ts::TS_ISA {

struct bf16 {
  std::uint16_t bits;
};

TS_INLINE i64 lesser(i64 a, i64 b) {
  return a < b ? a : b;
}
TS_INLINE i64 greater(i64 a, i64 b) {
  return a > b ? a : b;
}
TS_INLINE i64 ceil_div(i64 a, i64 b) {
  return (a + b - 1) / b;
}

TS_INLINE float to_float(float x) {
  return x;
}
TS_INLINE float to_float(bf16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}
// Round to nearest even; NaN stays a quiet NaN.
TS_INLINE bf16 to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return {static_cast<std::uint16_t>((bits | 0x400000u) >> 16)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
TS_INLINE void assign(float& to, float x) {
  to = x;
}
TS_INLINE void assign(bf16& to, float x) {
  to = to_bf16(x);
}

// clang-format off
#include TS_SIMD
#include "kernels/dot.h"
#include "kernels/pack.h"
#include "kernels/math.h"
#include "kernels/mix.h"
#include "kernels/linear.h"
#include "kernels/moe.h"
#include "kernels/elementwise.h"
#include "kernels/softmax.h"
#include "kernels/mla_decode.h"
#include "kernels/mla_prefill.h"
#include "kernels/sampling.h"
// clang-format on

}  // namespace ts::TS_ISA

namespace ts {

// Calls Kernel<float> or Kernel<bf16>.
#define TS_BY_DTYPE(Args, kernel)         \
  [](const Args& args, DType dtype) {     \
    if (dtype == DType::kBFloat16) {      \
      TS_ISA::kernel<TS_ISA::bf16>(args); \
    } else {                              \
      TS_ISA::kernel<float>(args);        \
    }                                     \
  }

extern const KernelTable TS_TABLE = {
    .name = TS_NAME,
    .linear = TS_BY_DTYPE(LinearArgs, linear),
    .moe_experts = TS_BY_DTYPE(MoeArgs, moe_experts),
    .rms_norm = TS_BY_DTYPE(NormArgs, rms_norm),
    .silu_and_mul = TS_BY_DTYPE(SiluArgs, silu_and_mul),
    .rope_interleaved = TS_BY_DTYPE(RopeArgs, rope_interleaved),
    .mla_cache_write = TS_BY_DTYPE(CacheWriteArgs, mla_cache_write),
    .mla_decode = TS_BY_DTYPE(MlaDecodeArgs, mla_decode),
    .mla_prefill = TS_BY_DTYPE(MlaPrefillArgs, mla_prefill),
    .most_likely = TS_ISA::most_likely,
    .penalise = TS_ISA::penalise,
};

#undef TS_BY_DTYPE

}  // namespace ts
