// SPDX-License-Identifier: MIT
//
// Rows of values mixed by weights: out[m] = sum_j p[m][j] * v[j], the values contiguous along the
// columns. The sum runs over j in order, in one accumulator for each output.

// A register tile: kRows rows of kGroups groups of 2 vectors, in the order of columns of Mix<T>.
template <class T, int kRows, int kGroups>
struct MixTile {
  using M = Mix<T>;
  static constexpr i64 kColumns = kGroups * 2 * kW;
  VF acc[kRows][kGroups][2];

  TS_INLINE void clear() {
    for (auto& row : acc) {
      for (auto& group : row) group[0] = group[1] = vzero();
    }
  }

  // Starts from `from` [kRows][stride], row i times factor[i].
  TS_INLINE void load(const float* from, i64 stride, const float* factor) {
    for (int i = 0; i < kRows; ++i) {
      for (int v = 0; v < 2 * kGroups; ++v) {
        acc[i][v / 2][v % 2] = vmul(vload(from + i * stride + v * kW), vset1(factor[i]));
      }
    }
  }

  TS_INLINE void store(float* to, i64 stride) const {
    for (int i = 0; i < kRows; ++i) {
      for (int v = 0; v < 2 * kGroups; ++v) vstore(to + i * stride + v * kW, acc[i][v / 2][v % 2]);
    }
  }

  // Adds M::kKeys rows of values, of which `columns` columns are valid; p[i] weighs them in row i.
  TS_INLINE void add(const typename M::P* const* p, i64 j, const T* row, const T* next_row,
                     i64 columns) {
    typename M::Reg v[kGroups][2];
    for (int g = 0; g < kGroups; ++g) {
      const i64 left = columns - g * 2 * kW;
      if (left >= 2 * kW) {
        M::load(row + g * 2 * kW, next_row + g * 2 * kW, v[g]);
      } else {
        M::load_n(row + g * 2 * kW, next_row + g * 2 * kW, static_cast<int>(greater(left, 0)),
                  v[g]);
      }
    }
    for (int i = 0; i < kRows; ++i) {
      const typename M::Weight w = M::weight(p[i] + j);
      for (int g = 0; g < kGroups; ++g) {
        acc[i][g][0] = M::add(acc[i][g][0], w, v[g][0]);
        acc[i][g][1] = M::add(acc[i][g][1], w, v[g][1]);
      }
    }
  }
};

// Fetches into the second-level cache what a tile's columns of a row of values span.
template <class T, i64 kColumns>
TS_INLINE void fetch_columns(const T* row) {
  constexpr i64 kLine = 64 / static_cast<i64>(sizeof(T));
  for (i64 d = 0; d < kColumns; d += kLine) __builtin_prefetch(row + d, 0, 2);
}

// Few rows take wider tiles: the same sums, more of the registers used.
inline constexpr int kFewRows = kMixRows / 2;
