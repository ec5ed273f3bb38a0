// SPDX-License-Identifier: MIT
//
// Vectors of 16 floats (AVX-512 F/BW/DQ/VL). With TS_BF16_DOT also vdpbf16ps.
// Included once per instruction set, inside namespace ts::TS_ISA; see isa.h.

using VF = __m512;
inline constexpr int kW = 16;

// Rows and vectors of the register tiles that the kernels use: 16 accumulators.
inline constexpr int kTileRows = 4;
inline constexpr int kTileVecs = 4;
inline constexpr int kDotRows = 4;
inline constexpr int kMixRows = 8;  // with one group of 2 vectors

TS_INLINE __mmask16 first(int n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}
TS_INLINE __mmask32 first32(int n) {
  return static_cast<__mmask32>(n >= 32 ? ~0u : (1u << n) - 1u);
}

TS_INLINE VF vzero() {
  return _mm512_setzero_ps();
}
TS_INLINE VF vset1(float x) {
  return _mm512_set1_ps(x);
}
TS_INLINE VF vadd(VF a, VF b) {
  return _mm512_add_ps(a, b);
}
TS_INLINE VF vsub(VF a, VF b) {
  return _mm512_sub_ps(a, b);
}
TS_INLINE VF vmul(VF a, VF b) {
  return _mm512_mul_ps(a, b);
}
TS_INLINE VF vdiv(VF a, VF b) {
  return _mm512_div_ps(a, b);
}
TS_INLINE VF vmax(VF a, VF b) {
  return _mm512_max_ps(a, b);
}
TS_INLINE VF vmin(VF a, VF b) {
  return _mm512_min_ps(a, b);
}
TS_INLINE VF vfma(VF a, VF b, VF c) {
  return _mm512_fmadd_ps(a, b, c);
}
TS_INLINE VF vround(VF a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT);
}
// a * 2^n for integral n in a float
TS_INLINE VF vscale2(VF a, VF n) {
  return _mm512_scalef_ps(a, n);
}

// a, but 0 in the lanes where x < limit
TS_INLINE VF vzero_below(VF x, VF limit, VF a) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), a);
}

TS_INLINE VF vload(const float* p) {
  return _mm512_loadu_ps(p);
}
TS_INLINE VF vload_n(const float* p, int n) {
  return _mm512_maskz_loadu_ps(first(n), p);
}
TS_INLINE void vstore(float* p, VF a) {
  _mm512_storeu_ps(p, a);
}
TS_INLINE void vstore_n(float* p, VF a, int n) {
  _mm512_mask_storeu_ps(p, first(n), a);
}

TS_INLINE VF widen(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
// Round to nearest even; NaN stays a quiet NaN.
TS_INLINE __m256i narrow(VF a) {
#ifdef TS_BF16_DOT
  return std::bit_cast<__m256i>(_mm512_cvtneps_pbh(a));
#else
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
#endif
}
TS_INLINE VF vload(const bf16* p) {
  return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
TS_INLINE VF vload_n(const bf16* p, int n) {
  return widen(_mm256_maskz_loadu_epi16(first(n), p));
}
TS_INLINE void vstore(bf16* p, VF a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(a));
}
TS_INLINE void vstore_n(bf16* p, VF a, int n) {
  _mm256_mask_storeu_epi16(p, first(n), narrow(a));
}

// Sum of the lanes, as the tree ((i, i+8), (i, i+4), (i, i+2), (i, i+1)); reduce16 uses the same.
TS_INLINE __m128 fold128(VF a) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
TS_INLINE float hsum(VF a) {
  const __m128 q = fold128(a);
  const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
TS_INLINE float hmax(VF a) {
  return _mm512_reduce_max_ps(a);
}

// out[i] = hsum(a[i]) for 16 vectors, the same bits, in a quarter of the instructions.
TS_INLINE void reduce16(const VF* a, float* out) {
  VF s[8];
  for (int i = 0; i < 8; ++i) {  // lanes i and i+8; vector 2i in the low half, 2i+1 in the high
    s[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x44),
                         _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xee));
  }
  VF q[4];
  for (int i = 0; i < 4; ++i) {  // lanes i and i+4; one 128-bit quarter for each of 4 vectors
    q[i] = _mm512_add_ps(_mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0x88),
                         _mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0xdd));
  }
  VF d[2];
  for (int i = 0; i < 2; ++i) {  // lanes i and i+2
    d[i] = _mm512_add_ps(_mm512_shuffle_ps(q[2 * i], q[2 * i + 1], 0x44),
                         _mm512_shuffle_ps(q[2 * i], q[2 * i + 1], 0xee));
  }
  // lanes i and i+1; quarter j of the result then holds vectors j, 4+j, 8+j, 12+j
  const VF r =
      _mm512_add_ps(_mm512_shuffle_ps(d[0], d[1], 0x88), _mm512_shuffle_ps(d[0], d[1], 0xdd));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_ps(out, _mm512_permutexvar_ps(order, r));
}

// out[i] = hsum(a[i])
template <int kCount>
TS_INLINE void hsums(const VF* a, float* out) {
  if constexpr (kCount == 16) {
    reduce16(a, out);
  } else {
    for (int i = 0; i < kCount; ++i) out[i] = hsum(a[i]);
  }
}

// --- dot products along a contiguous axis -----------------------------------------------------

template <class T>
struct Dot;

template <>
struct Dot<float> {
  static constexpr int kStep = kW;
  using Reg = VF;
  static TS_INLINE Reg load(const float* p) { return vload(p); }
  static TS_INLINE Reg load_n(const float* p, int n) { return vload_n(p, n); }
  static TS_INLINE VF add(VF acc, Reg a, Reg b) { return vfma(a, b, acc); }
};

template <>
struct Dot<bf16> {
  static constexpr int kStep = 2 * kW;
#ifdef TS_BF16_DOT
  using Reg = __m512bh;
  static TS_INLINE Reg from(__m512i x) { return std::bit_cast<__m512bh>(x); }
  static TS_INLINE VF add(VF acc, Reg a, Reg b) { return _mm512_dpbf16_ps(acc, a, b); }
#else
  struct Reg {
    VF even, odd;
  };
  static TS_INLINE Reg from(__m512i x) {
    return {
        _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
        _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(~0xffffu))))};
  }
  static TS_INLINE VF add(VF acc, Reg a, Reg b) {
    return vfma(a.odd, b.odd, vfma(a.even, b.even, acc));
  }
#endif
  static TS_INLINE Reg load(const bf16* p) { return from(_mm512_loadu_si512(p)); }
  static TS_INLINE Reg load_n(const bf16* p, int n) {
    return from(_mm512_maskz_loadu_epi16(first32(n), p));
  }
};

// --- probabilities times rows of values ---------------------------------------------------------

// A group is 2 * kW columns of kKeys rows; its accumulators hold the columns in an order of their
// own, which store() undoes.
template <class T>
struct Mix;

template <>
struct Mix<float> {
  static constexpr int kKeys = 1;
  using P = float;  // what a probability is stored as
  using Reg = VF;
  using Weight = VF;  // one broadcast probability
  static TS_INLINE void load(const float* a, const float*, Reg (&v)[2]) {
    v[0] = vload(a);
    v[1] = vload(a + kW);
  }
  static TS_INLINE void load_n(const float* a, const float*, int n, Reg (&v)[2]) {
    v[0] = vload_n(a, n < kW ? n : kW);
    v[1] = vload_n(a + kW, n > kW ? n - kW : 0);
  }
  static TS_INLINE Weight weight(const P* p) { return vset1(*p); }
  static TS_INLINE VF add(VF acc, Weight w, Reg v) { return vfma(w, v, acc); }
  static TS_INLINE void store(float* out, VF a, VF b) {
    vstore(out, a);
    vstore(out + kW, b);
  }
};

#ifdef TS_BF16_DOT
// Two keys at a time: lanes hold (v[j][d], v[j+1][d]) pairs, interleaved inside 128-bit quarters.
template <>
struct Mix<bf16> {
  static constexpr int kKeys = 2;
  using P = bf16;
  using Reg = __m512bh;
  using Weight = __m512bh;
  static TS_INLINE void pair(__m512i a, __m512i b, Reg (&v)[2]) {
    v[0] = std::bit_cast<__m512bh>(_mm512_unpacklo_epi16(a, b));
    v[1] = std::bit_cast<__m512bh>(_mm512_unpackhi_epi16(a, b));
  }
  static TS_INLINE void load(const bf16* a, const bf16* b, Reg (&v)[2]) {
    pair(_mm512_loadu_si512(a), _mm512_loadu_si512(b), v);
  }
  static TS_INLINE void load_n(const bf16* a, const bf16* b, int n, Reg (&v)[2]) {
    pair(_mm512_maskz_loadu_epi16(first32(n), a), _mm512_maskz_loadu_epi16(first32(n), b), v);
  }
  static TS_INLINE Weight weight(const P* p) {
    std::int32_t pair;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return std::bit_cast<__m512bh>(_mm512_set1_epi32(pair));
  }
  static TS_INLINE VF add(VF acc, Weight w, Reg v) { return _mm512_dpbf16_ps(acc, w, v); }
  static TS_INLINE void store(float* out, VF a, VF b) {
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high =
        _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    vstore(out, _mm512_permutex2var_ps(a, low, b));
    vstore(out + kW, _mm512_permutex2var_ps(a, high, b));
  }
};
#else
// Even columns in the first accumulator, odd ones in the second.
template <>
struct Mix<bf16> {
  static constexpr int kKeys = 1;
  using P = float;
  using Reg = VF;
  using Weight = VF;
  static TS_INLINE void split(__m512i x, Reg (&v)[2]) {
    const auto r = Dot<bf16>::from(x);
    v[0] = r.even;
    v[1] = r.odd;
  }
  static TS_INLINE void load(const bf16* a, const bf16*, Reg (&v)[2]) {
    split(_mm512_loadu_si512(a), v);
  }
  static TS_INLINE void load_n(const bf16* a, const bf16*, int n, Reg (&v)[2]) {
    split(_mm512_maskz_loadu_epi16(first32(n), a), v);
  }
  static TS_INLINE Weight weight(const P* p) { return vset1(*p); }
  static TS_INLINE VF add(VF acc, Weight w, Reg v) { return vfma(w, v, acc); }
  static TS_INLINE void store(float* out, VF a, VF b) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high =
        _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    vstore(out, _mm512_permutex2var_ps(a, low, b));
    vstore(out + kW, _mm512_permutex2var_ps(a, high, b));
  }
};
#endif
