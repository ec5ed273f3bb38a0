// SPDX-License-Identifier: MIT
//
// Operands that a kernel lays out itself: kPair consecutive elements of the axis that is summed
// over sit side by side, so that one instruction multiplies a broadcast pair with a vector of
// pairs.

template <class T>
struct Pack {
  static constexpr int kPair = 1;
  using E = float;  // bf16 operands are widened once, when they are packed
  using Reg = VF;
  static TS_INLINE Reg load(const E* p) { return vload(p); }
  static TS_INLINE Reg broadcast(const E* p) { return vset1(*p); }
  static TS_INLINE VF add(VF acc, Reg a, Reg b) { return vfma(a, b, acc); }
};

#ifdef TS_BF16_DOT
template <>
struct Pack<bf16> {
  static constexpr int kPair = 2;
  using E = bf16;
  using Reg = __m512bh;
  static TS_INLINE Reg load(const E* p) { return Dot<bf16>::load(p); }
  static TS_INLINE Reg broadcast(const E* p) { return Mix<bf16>::weight(p); }
  static TS_INLINE VF add(VF acc, Reg a, Reg b) { return _mm512_dpbf16_ps(acc, a, b); }
};
#endif
