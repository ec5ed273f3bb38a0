// SPDX-License-Identifier: MIT
//
// Vectors of 8 floats (AVX2 + FMA). Included inside namespace ts::TS_ISA.

using VF = __m256;
inline constexpr int kW = 8;

// Register tiles of 8 accumulators: half of the 16 registers.
inline constexpr int kTileRows = 4;
inline constexpr int kTileVecs = 2;
inline constexpr int kDotRows = 2;
inline constexpr int kMixRows = 4;  // with one group of 2 vectors

TS_INLINE __m256i first(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

TS_INLINE VF vzero() {
  return _mm256_setzero_ps();
}
TS_INLINE VF vset1(float x) {
  return _mm256_set1_ps(x);
}
TS_INLINE VF vadd(VF a, VF b) {
  return _mm256_add_ps(a, b);
}
TS_INLINE VF vsub(VF a, VF b) {
  return _mm256_sub_ps(a, b);
}
TS_INLINE VF vmul(VF a, VF b) {
  return _mm256_mul_ps(a, b);
}
TS_INLINE VF vdiv(VF a, VF b) {
  return _mm256_div_ps(a, b);
}
TS_INLINE VF vmax(VF a, VF b) {
  return _mm256_max_ps(a, b);
}
TS_INLINE VF vmin(VF a, VF b) {
  return _mm256_min_ps(a, b);
}
TS_INLINE VF vfma(VF a, VF b, VF c) {
  return _mm256_fmadd_ps(a, b, c);
}
TS_INLINE VF vround(VF a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// a * 2^n for integral n in [-126, 127] in a float
TS_INLINE VF vscale2(VF a, VF n) {
  const __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)));
}

// a, but 0 in the lanes where x < limit
TS_INLINE VF vzero_below(VF x, VF limit, VF a) {
  return _mm256_and_ps(_mm256_cmp_ps(x, limit, _CMP_NLT_UQ), a);
}

TS_INLINE VF vload(const float* p) {
  return _mm256_loadu_ps(p);
}
TS_INLINE VF vload_n(const float* p, int n) {
  return _mm256_maskload_ps(p, first(n));
}
TS_INLINE void vstore(float* p, VF a) {
  _mm256_storeu_ps(p, a);
}
TS_INLINE void vstore_n(float* p, VF a, int n) {
  _mm256_maskstore_ps(p, first(n), a);
}

TS_INLINE VF widen(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
// Round to nearest even; NaN stays a quiet NaN.
TS_INLINE __m128i narrow(VF a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
template <int kCount>
TS_INLINE void copy_n(bf16* to, const bf16* from, int n) {
  for (int i = 0; i < kCount; ++i) {
    if (i < n) to[i] = from[i];
  }
}
TS_INLINE VF vload(const bf16* p) {
  return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
TS_INLINE VF vload_n(const bf16* p, int n) {
  bf16 padded[kW] = {};
  copy_n<kW>(padded, p, n);
  return vload(padded);
}
TS_INLINE void vstore(bf16* p, VF a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(a));
}
TS_INLINE void vstore_n(bf16* p, VF a, int n) {
  bf16 padded[kW];
  vstore(padded, a);
  copy_n<kW>(p, padded, n);
}

// Sum of the lanes, as the tree ((i, i+4), (i, i+2), (i, i+1)).
TS_INLINE float hsum(VF a) {
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
TS_INLINE float hmax(VF a) {
  const __m128 q = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 d = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}

// out[i] = hsum(a[i])
template <int kCount>
TS_INLINE void hsums(const VF* a, float* out) {
  for (int i = 0; i < kCount; ++i) out[i] = hsum(a[i]);
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
  struct Reg {
    VF even, odd;
  };
  static TS_INLINE Reg from(__m256i x) {
    return {
        _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
        _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int>(~0xffffu))))};
  }
  static TS_INLINE Reg load(const bf16* p) {
    return from(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static TS_INLINE Reg load_n(const bf16* p, int n) {
    bf16 padded[2 * kW] = {};
    copy_n<2 * kW>(padded, p, n);
    return load(padded);
  }
  static TS_INLINE VF add(VF acc, Reg a, Reg b) {
    return vfma(a.odd, b.odd, vfma(a.even, b.even, acc));
  }
};

// --- probabilities times rows of values ---------------------------------------------------------

template <class T>
struct Mix;

template <>
struct Mix<float> {
  static constexpr int kKeys = 1;
  using P = float;
  using Reg = VF;
  using Weight = VF;
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

// Even columns in the first accumulator, odd ones in the second.
template <>
struct Mix<bf16> {
  static constexpr int kKeys = 1;
  using P = float;
  using Reg = VF;
  using Weight = VF;
  static TS_INLINE void load(const bf16* a, const bf16*, Reg (&v)[2]) {
    const auto r = Dot<bf16>::load(a);
    v[0] = r.even;
    v[1] = r.odd;
  }
  static TS_INLINE void load_n(const bf16* a, const bf16*, int n, Reg (&v)[2]) {
    const auto r = Dot<bf16>::load_n(a, n);
    v[0] = r.even;
    v[1] = r.odd;
  }
  static TS_INLINE Weight weight(const P* p) { return vset1(*p); }
  static TS_INLINE VF add(VF acc, Weight w, Reg v) { return vfma(w, v, acc); }
  static TS_INLINE void store(float* out, VF a, VF b) {
    const __m256 low = _mm256_unpacklo_ps(a, b);   // a0 b0 a1 b1 | a4 b4 a5 b5
    const __m256 high = _mm256_unpackhi_ps(a, b);  // a2 b2 a3 b3 | a6 b6 a7 b7
    vstore(out, _mm256_permute2f128_ps(low, high, 0x20));
    vstore(out + kW, _mm256_permute2f128_ps(low, high, 0x31));
  }
};
