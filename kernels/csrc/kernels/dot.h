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

// out[i * kDotCols + j] = x[i] . w[j]; `ahead` elements past each w row are fetched into the cache
// (0: nothing to fetch).
template <class T, int kRows>
TS_INLINE void dot_tile(const T* const* x, const T* const* w, i64 k, i64 ahead, float* out) {
  VF acc[kRows * kDotCols];
  for (VF& a : acc) a = vzero();
  const auto step = [&](const auto& load) {
    typename Dot<T>::Reg a[kRows];
    for (int i = 0; i < kRows; ++i) a[i] = load(x[i]);
    for (int j = 0; j < kDotCols; ++j) {
      const typename Dot<T>::Reg b = load(w[j]);
      for (int i = 0; i < kRows; ++i) {
        acc[i * kDotCols + j] = Dot<T>::add(acc[i * kDotCols + j], a[i], b);
      }
    }
  };
  constexpr int kStep = Dot<T>::kStep;
  i64 at = 0;
  for (; at + kStep <= k; at += kStep) {
    if (ahead != 0) {
      for (int j = 0; j < kDotCols; ++j) __builtin_prefetch(w[j] + at + ahead);
    }
    step([at](const T* p) TS_LAMBDA_INLINE { return Dot<T>::load(p + at); });
  }
  if (at < k) {
    const int left = static_cast<int>(k - at);
    step([at, left](const T* p) TS_LAMBDA_INLINE { return Dot<T>::load_n(p + at, left); });
  }
  if constexpr (kW == 16 && kRows == 4) {
    reduce16(acc, out);
  } else {
    for (int i = 0; i < kRows * kDotCols; ++i) out[i] = hsum(acc[i]);
  }
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

// x_row(t) . w_row(n) for t in [t0, t1), n in [n0, n1). emit(t, n, rows, cols, out) gets each tile
// and may change it.
template <class T, class XRow, class WRow, class Emit>
TS_INLINE void dot_block(i64 t0, i64 t1, i64 n0, i64 n1, i64 k, i64 ahead, const XRow& x_row,
                         const WRow& w_row, const Emit& emit) {
  for (i64 t = t0; t < t1; t += kDotRows) {
    const int rows = static_cast<int>(lesser(kDotRows, t1 - t));
    const T* x[kDotRows];
    for (int i = 0; i < kDotRows; ++i) x[i] = x_row(lesser(t + i, t1 - 1));
    for (i64 n = n0; n < n1; n += kDotCols) {
      const T* w[kDotCols];
      for (int j = 0; j < kDotCols; ++j) w[j] = w_row(lesser(n + j, n1 - 1));
      float out[kTile] = {};
      const i64 fetch = t == t0 ? ahead : 0;
      if (rows == kDotRows) {
        dot_tile<T, kDotRows>(x, w, k, fetch, out);
      } else if (rows == 1) {
        dot_tile<T, 1>(x, w, k, fetch, out);
      } else if constexpr (kDotRows > 2) {
        rows == 2 ? dot_tile<T, 2>(x, w, k, fetch, out) : dot_tile<T, 3>(x, w, k, fetch, out);
      }
      emit(t, n, rows, static_cast<int>(lesser(kDotCols, n1 - n)), out);
    }
  }
}

// Weight rows that fit in half of a first-level cache beside the x tile.
template <class T>
TS_INLINE i64 rows_in_l1(i64 k) {
  const i64 rows = (32 << 10) / (greater(k, 1) * static_cast<i64>(sizeof(T)));
  return lesser(greater(rows / kDotCols * kDotCols, 2 * kDotCols), 64);
}

// Tokens of one unit of work: their rows stay in the second-level cache.
inline constexpr i64 kTokenBlock = 128;
