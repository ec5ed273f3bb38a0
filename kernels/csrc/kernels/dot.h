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

// Rows that will be wanted soon, to be brought into a cache while a tile computes.
template <class T>
struct Fetch {
  const T* row[kDotCols] = {};
  bool near = true;  // into the first-level cache, else into the second
};

// out[i * kDotCols + j] = x[i] . w[j]
template <class T, int kRows>
TS_INLINE void dot_tile(const T* const* x, const T* const* w, i64 k, const Fetch<T>& fetch,
                        float* out) {
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
    if (fetch.row[0] != nullptr) {
      for (const T* row : fetch.row) {
        fetch.near ? __builtin_prefetch(row + at, 0, 3) : __builtin_prefetch(row + at, 0, 2);
      }
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

// Nothing to fetch; see dot_block.
template <class T>
struct NoFetch {
  TS_INLINE const T* near(i64) const { return nullptr; }
  TS_INLINE const T* far(i64) const { return nullptr; }
};

// x_row(t) . w_row(n) for t in [t0, t1), n in [n0, n1). emit(t, n, rows, cols, out) gets each tile
// and may change it. While the first tile of x reads w from memory, `ahead.near(n)` tells which row
// to have ready next; while the second tile finds w in the cache, `ahead.far(n)` names the rows of
// a later unit of work, so that the memory is never idle.
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
      Fetch<T> fetch;
      if (t <= t0 + kDotRows) {
        fetch.near = t == t0;
        for (int j = 0; j < kDotCols; ++j) {
          fetch.row[j] = fetch.near ? ahead.near(n + j) : ahead.far(n + j);
        }
      }
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
