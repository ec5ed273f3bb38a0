// SPDX-License-Identifier: MIT
//
// Vectors of 4 floats in the compiler's own vector types: any CPU. Included inside namespace
// ts::TS_ISA. The fallback that keeps the package working, not a fast path.

using VF = float __attribute__((vector_size(16)));
inline constexpr int kW = 4;
inline constexpr int kTileRows = 2;
inline constexpr int kTileVecs = 2;
inline constexpr int kDotRows = 2;
inline constexpr int kMixRows = 4;  // with one group of 2 vectors

TS_INLINE VF vzero() {
  return VF{};
}
TS_INLINE VF vset1(float x) {
  return VF{x, x, x, x};
}
TS_INLINE VF vadd(VF a, VF b) {
  return a + b;
}
TS_INLINE VF vsub(VF a, VF b) {
  return a - b;
}
TS_INLINE VF vmul(VF a, VF b) {
  return a * b;
}
TS_INLINE VF vdiv(VF a, VF b) {
  return a / b;
}
TS_INLINE VF vmax(VF a, VF b) {
  return a > b ? a : b;
}  // the second if one is NaN, as x86 does
TS_INLINE VF vmin(VF a, VF b) {
  return a < b ? a : b;
}
TS_INLINE VF vfma(VF a, VF b, VF c) {
  return a * b + c;
}
TS_INLINE VF vround(VF a) {
  return VF{__builtin_rintf(a[0]), __builtin_rintf(a[1]), __builtin_rintf(a[2]),
            __builtin_rintf(a[3])};
}
// a * 2^n for integral n in a float
TS_INLINE VF vscale2(VF a, VF n) {
  return VF{__builtin_ldexpf(a[0], static_cast<int>(n[0])),
            __builtin_ldexpf(a[1], static_cast<int>(n[1])),
            __builtin_ldexpf(a[2], static_cast<int>(n[2])),
            __builtin_ldexpf(a[3], static_cast<int>(n[3]))};
}

// a, but 0 in the lanes where x < limit
TS_INLINE VF vzero_below(VF x, VF limit, VF a) {
  for (int i = 0; i < kW; ++i) a[i] = x[i] < limit[i] ? 0.0f : a[i];
  return a;
}

TS_INLINE VF vload(const float* p) {
  return VF{p[0], p[1], p[2], p[3]};
}
TS_INLINE void vstore(float* p, VF a) {
  for (int i = 0; i < kW; ++i) p[i] = a[i];
}
TS_INLINE VF vload(const bf16* p) {
  return VF{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])};
}
TS_INLINE void vstore(bf16* p, VF a) {
  for (int i = 0; i < kW; ++i) p[i] = to_bf16(a[i]);
}
template <class T>
TS_INLINE VF vload_n(const T* p, int n) {
  VF a{};
  for (int i = 0; i < kW; ++i) {
    if (i < n) a[i] = to_float(p[i]);
  }
  return a;
}
template <class T>
TS_INLINE void vstore_n(T* p, VF a, int n) {
  for (int i = 0; i < kW; ++i) {
    if (i < n) assign(p[i], a[i]);
  }
}

TS_INLINE float hsum(VF a) {
  return (a[0] + a[2]) + (a[1] + a[3]);
}
TS_INLINE float hmax(VF a) {
  const float x = a[0] > a[1] ? a[0] : a[1];
  const float y = a[2] > a[3] ? a[2] : a[3];
  return x > y ? x : y;
}

// out[i] = hsum(a[i])
template <int kCount>
TS_INLINE void hsums(const VF* a, float* out) {
  for (int i = 0; i < kCount; ++i) out[i] = hsum(a[i]);
}

template <class T>
struct Dot {
  static constexpr int kStep = kW;
  using Reg = VF;
  static TS_INLINE Reg load(const T* p) { return vload(p); }
  static TS_INLINE Reg load_n(const T* p, int n) { return vload_n(p, n); }
  static TS_INLINE VF add(VF acc, Reg a, Reg b) { return vfma(a, b, acc); }
};

template <class T>
struct Mix {
  static constexpr int kKeys = 1;
  using P = float;
  using Reg = VF;
  using Weight = VF;
  static TS_INLINE void load(const T* a, const T*, Reg (&v)[2]) {
    v[0] = vload(a);
    v[1] = vload(a + kW);
  }
  static TS_INLINE void load_n(const T* a, const T*, int n, Reg (&v)[2]) {
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
