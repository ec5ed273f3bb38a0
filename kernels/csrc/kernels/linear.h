// SPDX-License-Identifier: MIT
//
// Linear layers, one or a batch of them (a matrix for each head).

// Weights [N, K] with K contiguous: dot products.
template <class T>
void linear_rows(const LinearArgs& a) {
  const T* const x = static_cast<const T*>(a.x);
  const T* const w = static_cast<const T*>(a.w);
  const T* const bias = static_cast<const T*>(a.bias);
  const i64 n_block = rows_in_l1<T>(a.k);
  const i64 n_blocks = ceil_div(a.n, n_block);
  const i64 t_blocks = ceil_div(a.tokens, kTokenBlock);
  parallel_for(a.heads * t_blocks * n_blocks, [&](i64 index) {
    const i64 n0 = index % n_blocks * n_block;
    const i64 n1 = lesser(n0 + n_block, a.n);
    const i64 t0 = index / n_blocks % t_blocks * kTokenBlock;
    const i64 t1 = lesser(t0 + kTokenBlock, a.tokens);
    const i64 head = index / n_blocks / t_blocks;
    const T* const xh = x + head * a.x_head;
    const T* const wh = w + head * a.w_head;
    const auto run = [&](auto* yh) TS_LAMBDA_INLINE {
      dot_block<T>(
          t0, t1, n0, n1, a.k, kDotCols * a.w_row, [&](i64 t) { return xh + t * a.x_token; },
          [&](i64 n) { return wh + n * a.w_row; },
          [&](i64 t, i64 n, int rows, int cols, const float* out) TS_LAMBDA_INLINE {
            float b[kDotCols] = {};
            if (bias != nullptr) {
              for (int j = 0; j < cols; ++j) b[j] = to_float(bias[n + j]);
            }
            for (int i = 0; i < rows; ++i) {
              auto* const y = yh + (t + i) * a.y_token + n;
              for (int j = 0; j < cols; ++j) assign(y[j], out[i * kDotCols + j] + b[j]);
            }
          });
    };
    if (a.out_fp32) {
      run(static_cast<float*>(a.y) + head * a.y_head);
    } else {
      run(static_cast<T*>(a.y) + head * a.y_head);
    }
  });
}

// Weights [N, K] with N contiguous (a transposed view): sums of weight columns, each weighted by
// one number of x. The same order of additions whatever the number of tokens.
template <class T>
void linear_columns(const LinearArgs& a) {
  using M = Mix<T>;
  constexpr int kGroups = kTileVecs / 2;
  constexpr i64 kColumns = kGroups * 2 * kW;
  const T* const x = static_cast<const T*>(a.x);
  const T* const w = static_cast<const T*>(a.w);
  const i64 padded_k = ceil_div(a.k, M::kKeys) * M::kKeys;
  const i64 n_block = greater(kColumns, (1 << 14) / greater(a.k, 1) / kColumns * kColumns);
  const i64 n_blocks = ceil_div(a.n, n_block);
  const i64 t_blocks = ceil_div(a.tokens, kTokenBlock);
  using P = typename M::P;
  const i64 thread_elements = ceil_div(kTileRows * padded_k, 64) * 64;
  P* const scratch = static_cast<P*>(scratch_bytes(
      Scratch::kPerThread,
      sizeof(P) * static_cast<std::size_t>(thread_elements) * static_cast<std::size_t>(thread_slots())));
  parallel_for(a.heads * t_blocks * n_blocks, [&](i64 index) {
    const i64 n0 = index % n_blocks * n_block;
    const i64 n1 = lesser(n0 + n_block, a.n);
    const i64 t0 = index / n_blocks % t_blocks * kTokenBlock;
    const i64 t1 = lesser(t0 + kTokenBlock, a.tokens);
    const i64 head = index / n_blocks / t_blocks;
    const T* const xh = x + head * a.x_head;
    const T* const wh = w + head * a.w_head;
    P* const p = scratch + thread_index() * thread_elements;
    for (i64 t = t0; t < t1; t += kTileRows) {
      for (int i = 0; i < kTileRows; ++i) {
        const T* const from = xh + lesser(t + i, t1 - 1) * a.x_token;
        for (i64 k = 0; k < a.k; ++k) assign(p[i * padded_k + k], to_float(from[k]));
        for (i64 k = a.k; k < padded_k; ++k) assign(p[i * padded_k + k], 0.0f);
      }
      for (i64 n = n0; n < n1; n += kColumns) {
        VF acc[kTileRows][kGroups][2];
        for (auto& row : acc) {
          for (auto& group : row) group[0] = group[1] = vzero();
        }
        const i64 columns = lesser(kColumns, n1 - n);
        for (i64 k = 0; k < a.k; k += M::kKeys) {
          const T* const first_row = wh + k * a.w_k + n;
          const T* const second_row = k + 1 < a.k ? first_row + a.w_k : first_row;
          mix_step<T>(acc, p + k, padded_k, first_row, second_row, static_cast<int>(columns));
        }
        for (int i = 0; i < kTileRows && t + i < t1; ++i) {
          float row[kColumns];
          for (int g = 0; g < kGroups; ++g) M::store(row + g * 2 * kW, acc[i][g][0], acc[i][g][1]);
          const i64 at = head * a.y_head + (t + i) * a.y_token + n;
          for (i64 j = 0; j < columns; ++j) {
            if (a.out_fp32) {
              static_cast<float*>(a.y)[at + j] = row[j];
            } else {
              assign(static_cast<T*>(a.y)[at + j], row[j]);
            }
          }
        }
      }
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
