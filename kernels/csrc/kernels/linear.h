// SPDX-License-Identifier: MIT
//
// Linear layers, one or a batch of them (a matrix for each head).

// Which rows of a weight matrix a unit of work on rows [.., end) wants next: first its own, then
// those of the unit that the thread is likely to get after it, `far_rows` on (0: there is none; a
// fetch past the end then does nothing).
template <class T>
struct RowsAhead {
  const T* w;
  i64 w_row, ahead, end, block, far_rows;
  static constexpr bool kNear = true;
  TS_INLINE bool has_far() const { return far_rows != 0; }
  TS_INLINE const T* near(i64 n) const {
    const i64 row = n + ahead;
    return w + (row < end || far_rows == 0 ? row : row - block + far_rows) * w_row;
  }
  TS_INLINE const T* far(i64 n) const { return w + (n + far_rows) * w_row; }
};

// Weights [N, K] with K contiguous: dot products.
template <class T>
void linear_rows(const LinearArgs& a) {
  const T* const x = static_cast<const T*>(a.x);
  const T* const w = static_cast<const T*>(a.w);
  const T* const bias = static_cast<const T*>(a.bias);
  const i64 n_block = rows_in_l1<T>(a.k);
  const i64 n_blocks = ceil_div(a.n, n_block);
  const i64 t_blocks = ceil_div(a.tokens, kTokenBlock);
  const i64 later = n_block * num_threads();  // the rows of the unit that this thread gets next
  parallel_for(a.heads * t_blocks * n_blocks, [&](i64 index) {
    const i64 n0 = index % n_blocks * n_block;
    const i64 n1 = lesser(n0 + n_block, a.n);
    const i64 t0 = index / n_blocks % t_blocks * kTokenBlock;
    const i64 t1 = lesser(t0 + kTokenBlock, a.tokens);
    const i64 head = index / n_blocks / t_blocks;
    const T* const xh = x + head * a.x_head;
    const T* const wh = w + head * a.w_head;
    const i64 far = t_blocks == 1 && n0 + later < a.n ? later : 0;
    const auto run = [&](auto* yh) TS_LAMBDA_INLINE {
      dot_block<T>(
          t0, t1, n0, n1, a.k, [&](i64 t) { return xh + t * a.x_token; },
          [&](i64 n) { return wh + n * a.w_row; },
          RowsAhead<T>{wh, a.w_row, rows_ahead<T>(a.tokens, a.k), n1, n_block, far},
          [&](i64 t, i64 n, int rows, int cols, float* out) TS_LAMBDA_INLINE {
            if (bias != nullptr) {
              for (int i = 0; i < rows; ++i) {
                for (int j = 0; j < cols; ++j) out[i * kDotCols + j] += to_float(bias[n + j]);
              }
            }
            store_tile(yh + t * a.y_token + n, a.y_token, out, rows, cols);
          });
    };
    if (a.out_fp32) {
      run(static_cast<float*>(a.y) + head * a.y_head);
    } else {
      run(static_cast<T*>(a.y) + head * a.y_head);
    }
  });
}

// Weights [N, K] with N contiguous (a transposed view): weight columns mixed by x.
template <class T, int kRows, int kGroups>
struct ColumnsUnit {
  using M = Mix<T>;
  using P = typename M::P;
  using Tile = MixTile<T, kRows, kGroups>;
  static constexpr bool kInPlace = sizeof(P) == sizeof(T);  // x itself can be the weights
  const LinearArgs& a;
  i64 head, t0, t1, n0, n1;
  const T* later;  // the weights of the unit that this thread is likely to get next
  P* scratch;      // [kRows, padded k]

  TS_INLINE void run() const {
    for (i64 t = t0; t < t1; t += kRows) {
      const P* p[kRows];
      rows(t, p);
      for (i64 n = n0; n < n1; n += Tile::kColumns) tile(t, n, p);
    }
  }

  // The rows of x as weights; a pair must not reach past the end of k.
  TS_INLINE void rows(i64 t, const P** p) const {
    const i64 padded = ceil_div(a.k, M::kKeys) * M::kKeys;
    for (int i = 0; i < kRows; ++i) {
      const T* const x =
          static_cast<const T*>(a.x) + head * a.x_head + lesser(t + i, t1 - 1) * a.x_token;
      if constexpr (kInPlace) {
        p[i] = x;
        if (padded == a.k) continue;
      }
      P* const to = scratch + i * padded;
      for (i64 k = 0; k < a.k; k += kW) {
        const int n = static_cast<int>(lesser(kW, a.k - k));
        vstore_n(to + k, vload_n(x + k, n), n);
      }
      for (i64 k = a.k; k < padded; ++k) assign(to[k], 0.0f);
      p[i] = to;
    }
  }

  TS_INLINE void tile(i64 t, i64 n, const P* const* p) const {
    const i64 columns = lesser(Tile::kColumns, n1 - n);
    const T* const w = static_cast<const T*>(a.w) + head * a.w_head + n;
    // Columns are far apart in memory for a processor to foresee: each tile fetches the next one.
    const T* next = n + Tile::kColumns < n1 ? w + Tile::kColumns : later;
    if (t != t0) next = nullptr;
    Tile sum;
    sum.clear();
    if (columns == Tile::kColumns) {
      add_all(sum, p, w, next, Tile::kColumns);
    } else {
      add_all(sum, p, w, next, columns);
    }
    for (int i = 0; i < kRows && t + i < t1; ++i) {
      float row[Tile::kColumns];
      for (int g = 0; g < kGroups; ++g) {
        M::store(row + g * 2 * kW, sum.acc[i][g][0], sum.acc[i][g][1]);
      }
      const i64 at = head * a.y_head + (t + i) * a.y_token + n;
      if (a.out_fp32) {
        copy_row(static_cast<float*>(a.y) + at, row, columns);
      } else {
        copy_row(static_cast<T*>(a.y) + at, row, columns);
      }
    }
  }

  TS_INLINE void add_all(Tile& sum, const P* const* p, const T* w, const T* next,
                         i64 columns) const {
    for (i64 k = 0; k < a.k; k += M::kKeys) {
      if (next != nullptr) {
        for (i64 i = 0; i < M::kKeys; ++i) {
          fetch_columns<T, Tile::kColumns>(next + (k + i) * a.w_k);
        }
      }
      const T* const row = w + k * a.w_k;
      sum.add(p, k, row, k + 1 < a.k ? row + a.w_k : row, columns);
    }
  }

  template <class Y>
  static TS_INLINE void copy_row(Y* y, const float* row, i64 columns) {
    for (i64 d = 0; d < columns; d += kW) {
      vstore_n(y + d, vload(row + d), static_cast<int>(lesser(kW, columns - d)));
    }
  }
};

template <class T>
void linear_columns(const LinearArgs& a) {
  using P = typename Mix<T>::P;
  constexpr i64 kWide = 4 * kW;
  const i64 block_bytes = a.tokens <= kMixRows ? 64 << 10 : 32 << 10;
  const i64 n_block =
      greater(1, block_bytes / static_cast<i64>(sizeof(T)) / greater(a.k, 1) / kWide) * kWide;
  const i64 n_blocks = ceil_div(a.n, n_block);
  const i64 t_blocks = ceil_div(a.tokens, kTokenBlock);
  const i64 row_elements = (a.k + 64) / 64 * 64;
  auto* const scratch = static_cast<P*>(scratch_bytes(
      Scratch::kPerThread,
      sizeof(P) * static_cast<std::size_t>(kMixRows * row_elements * thread_slots())));
  parallel_for(a.heads * t_blocks * n_blocks, [&](i64 index) {
    const i64 n0 = index % n_blocks * n_block;
    const i64 n1 = lesser(n0 + n_block, a.n);
    const i64 t0 = index / n_blocks % t_blocks * kTokenBlock;
    const i64 t1 = lesser(t0 + kTokenBlock, a.tokens);
    const i64 head = index / n_blocks / t_blocks;
    P* const mine = scratch + thread_index() * kMixRows * row_elements;
    const i64 next = index + num_threads();
    const T* const later =
        t_blocks == 1 && next < a.heads * n_blocks
            ? static_cast<const T*>(a.w) + next / n_blocks * a.w_head + next % n_blocks * n_block
            : nullptr;
    if (t1 - t0 <= kFewRows) {
      ColumnsUnit<T, kFewRows, 2>{a, head, t0, t1, n0, n1, later, mine}.run();
    } else {
      ColumnsUnit<T, kMixRows, 1>{a, head, t0, t1, n0, n1, later, mine}.run();
    }
  });
}

template <class T>
void linear(const LinearArgs& a) {
  if (a.w_k == 1) {
    linear_rows<T>(a);
  } else {
    linear_columns<T>(a);
  }
}
