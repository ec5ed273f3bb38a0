// SPDX-License-Identifier: MIT
//
// Rows of values mixed by probabilities (or by any weights): out[m] += sum_j p[m][j] * v[j], the
// values contiguous along the columns. The sum runs over j in order, in one accumulator.

// One step: M::kKeys rows of values, kTileRows rows of weights `p_stride` apart, `columns` valid
// columns of kTileVecs vectors.
template <class T>
TS_INLINE void mix_step(VF (&acc)[kTileRows][kTileVecs / 2][2], const typename Mix<T>::P* p,
                        i64 p_stride, const T* row, const T* next_row, int columns) {
  using M = Mix<T>;
  constexpr int kGroups = kTileVecs / 2;
  typename M::Reg v[kGroups][2];
  for (int g = 0; g < kGroups; ++g) {
    const int left = columns - g * 2 * kW;
    if (left >= 2 * kW) {
      M::load(row + g * 2 * kW, next_row + g * 2 * kW, v[g]);
    } else {
      M::load_n(row + g * 2 * kW, next_row + g * 2 * kW, left < 0 ? 0 : left, v[g]);
    }
  }
  for (int i = 0; i < kTileRows; ++i) {
    const typename M::Weight w = M::weight(p + i * p_stride);
    for (int g = 0; g < kGroups; ++g) {
      acc[i][g][0] = M::add(acc[i][g][0], w, v[g][0]);
      acc[i][g][1] = M::add(acc[i][g][1], w, v[g][1]);
    }
  }
}
