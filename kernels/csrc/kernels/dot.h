// SPDX-License-Identifier: MIT
//
// Dot products of rows with rows: the core of every matrix product here. Weights are [N, K] with K
// contiguous, so an output is a dot product of two contiguous rows; a register tile computes
// kDotRows x kDotCols of them, each in one vector accumulator over all of K, and sums the lanes at
// the end, always by the same tree.
//
// So the order of additions of an output depends on K alone: not on how many rows the call has, not
// on the tile, not on the thread. The same row gives the same bits alone and in any batch.

inline constexpr int kDotCols = 4;

// Into which cache rows that will be wanted soon are brought while others are summed.
enum class Fetch { kNone, kNear, kFar };

template <Fetch kFetch, class T>
TS_INLINE void fetch_line(const T* p) {
  if constexpr (kFetch == Fetch::kNear) __builtin_prefetch(p, 0, 3);
  if constexpr (kFetch == Fetch::kFar) __builtin_prefetch(p, 0, 2);
}

// acc[i * kCols + j] = x[i] . w[j], a vector of lanes each; meanwhile the rows `soon` are fetched.
template <class T, int kRows, int kCols, Fetch kFetch>
TS_INLINE void dot_lanes(const T* const* x, const T* const* w, i64 k, const T* const* soon,
                         VF (&acc)[kRows * kCols]) {
  for (VF& a : acc) a = vzero();
  const auto step = [&](const auto& load) TS_LAMBDA_INLINE {
    typename Dot<T>::Reg a[kRows];
    for (int i = 0; i < kRows; ++i) a[i] = load(x[i]);
    for (int j = 0; j < kCols; ++j) {
      const typename Dot<T>::Reg b = load(w[j]);
      for (int i = 0; i < kRows; ++i) {
        acc[i * kCols + j] = Dot<T>::add(acc[i * kCols + j], a[i], b);
      }
    }
  };
  constexpr int kStep = Dot<T>::kStep;
  i64 at = 0;
  for (; at + kStep <= k; at += kStep) {
    if constexpr (kFetch != Fetch::kNone) {
      for (int j = 0; j < kCols; ++j) fetch_line<kFetch>(soon[j] + at);
    }
    step([at](const T* p) TS_LAMBDA_INLINE { return Dot<T>::load(p + at); });
  }
  if (at < k) {
    const int left = static_cast<int>(k - at);
    step([at, left](const T* p) TS_LAMBDA_INLINE { return Dot<T>::load_n(p + at, left); });
  }
}

// out[i * kDotCols + j] = x[i] . w[j]
template <class T, int kRows, Fetch kFetch = Fetch::kNone>
TS_INLINE void dot_tile(const T* const* x, const T* const* w, i64 k, const T* const* soon,
                        float* out) {
  VF lanes[kRows * kDotCols];
  if constexpr (kFetch == Fetch::kNear) {
    // Rows that come from memory are read one after the other, each from end to end, which is a
    // quarter faster than four at a time; two where one would wait for its own sums. The sums are
    // the same.
    constexpr int kAtOnce = kRows == 1 ? 1 : kDotCols;
    for (int j = 0; j < kDotCols; j += kAtOnce) {
      VF some[kRows * kAtOnce];
      dot_lanes<T, kRows, kAtOnce, kFetch>(x, w + j, k, soon + j, some);
      for (int i = 0; i < kRows; ++i) {
        for (int c = 0; c < kAtOnce; ++c) lanes[i * kDotCols + j + c] = some[i * kAtOnce + c];
      }
    }
  } else {
    dot_lanes<T, kRows, kDotCols, kFetch>(x, w, k, soon, lanes);
  }
  hsums<kRows * kDotCols>(lanes, out);
}

inline constexpr int kTile = kDotRows * kDotCols;

// Rounds a whole tile to T at once.
template <class T>
TS_INLINE void round_tile(const float* out, T* rounded) {
  for (int i = 0; i < kTile; i += kW) vstore(rounded + i, vload(out + i));
}

// y[i * stride + j] = out[i][j] for the tile's valid part
template <class T>
TS_INLINE void store_tile(T* y, i64 stride, const float* out, int rows, int cols) {
  T rounded[kTile];
  round_tile(out, rounded);
  for (int i = 0; i < rows; ++i) {
    if (cols == kDotCols) {
      __builtin_memcpy(y + i * stride, rounded + i * kDotCols, kDotCols * sizeof(T));
    } else {
      for (int j = 0; j < cols; ++j) y[i * stride + j] = rounded[i * kDotCols + j];
    }
  }
}

// One tile of dot_block, of fewer rows at the end of x.
template <class T, Fetch kFetch>
TS_INLINE void dot_some(int rows, const T* const* x, const T* const* w, i64 k, const T* const* soon,
                        float* out) {
  if (rows == kDotRows) {
    dot_tile<T, kDotRows, kFetch>(x, w, k, soon, out);
  } else if (rows == 1) {
    dot_tile<T, 1, kFetch>(x, w, k, soon, out);
  } else if constexpr (kDotRows > 2) {
    rows == 2 ? dot_tile<T, 2, kFetch>(x, w, k, soon, out)
              : dot_tile<T, 3, kFetch>(x, w, k, soon, out);
  }
}

// Nothing to fetch; see dot_block.
template <class T>
struct NoFetch {
  static constexpr bool kNear = false;
  TS_INLINE bool has_far() const { return false; }
  TS_INLINE const T* near(i64) const { return nullptr; }
  TS_INLINE const T* far(i64) const { return nullptr; }
};

// x_row(t) . w_row(n) for t in [t0, t1), n in [n0, n1). emit(t, n, rows, cols, out) gets each tile
// and may change it. While the first tile of x reads w from memory, `ahead.near(n)` tells which row
// to have ready next; while the second tile finds w in the cache, `ahead.far(n)` names the rows of
// a later unit of work, so that the memory is not idle.
template <class T, class XRow, class WRow, class Ahead, class Emit>
TS_INLINE void dot_block(i64 t0, i64 t1, i64 n0, i64 n1, i64 k, const XRow& x_row,
                         const WRow& w_row, const Ahead& ahead, const Emit& emit) {
  for (i64 t = t0; t < t1; t += kDotRows) {
    const int rows = static_cast<int>(lesser(kDotRows, t1 - t));
    const T* x[kDotRows];
    for (int i = 0; i < kDotRows; ++i) x[i] = x_row(lesser(t + i, t1 - 1));
    for (i64 n = n0; n < n1; n += kDotCols) {
      const T* w[kDotCols];
      for (int j = 0; j < kDotCols; ++j) w[j] = w_row(lesser(n + j, n1 - 1));
      float out[kTile] = {};
      const T* soon[kDotCols];
      if (Ahead::kNear && t == t0) {
        for (int j = 0; j < kDotCols; ++j) soon[j] = ahead.near(n + j);
        dot_some<T, Fetch::kNear>(rows, x, w, k, soon, out);
      } else if (Ahead::kNear && t == t0 + kDotRows && ahead.has_far()) {
        for (int j = 0; j < kDotCols; ++j) soon[j] = ahead.far(n + j);
        dot_some<T, Fetch::kFar>(rows, x, w, k, soon, out);
      } else {
        dot_some<T, Fetch::kNone>(rows, x, w, k, nullptr, out);
      }
      emit(t, n, rows, static_cast<int>(lesser(kDotCols, n1 - n)), out);
    }
  }
}

// How far ahead of use rows are fetched from memory: 8 KB, and past the rows in use.
template <class T>
TS_INLINE i64 rows_ahead(i64 tokens, i64 k) {
  const i64 rows = (8 << 10) / (greater(k, 1) * static_cast<i64>(sizeof(T)));
  return greater(tokens == 1 ? 1 : kDotCols, rows);
}

// Weight rows that fit in half of a first-level cache beside the x tile.
template <class T>
TS_INLINE i64 rows_in_l1(i64 k) {
  const i64 rows = (32 << 10) / (greater(k, 1) * static_cast<i64>(sizeof(T)));
  return lesser(greater(rows / kDotCols * kDotCols, 2 * kDotCols), 64);
}

// Tokens of one unit of work: their rows stay in the second-level cache.
inline constexpr i64 kTokenBlock = 128;
