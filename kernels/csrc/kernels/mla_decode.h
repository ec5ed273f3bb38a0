// SPDX-License-Identifier: MIT
//
// Latent attention in the absorbed form, over pages in place.
//
// The query tokens of a row and its heads form M = q_tokens * heads query rows that read the same
// entries. A unit of work is (row, split, tile of query rows): a split is a range of the context
// whose bounds depend on that context's length alone, so a row's result does not depend on its
// neighbours. Splits are combined in order by their log-sum-exp.

inline constexpr i64 kDecodeBlock = 32;   // entries of one softmax step: they stay in the L1 cache
inline constexpr i64 kDecodeSplit = 256;  // entries of a split, until there are kMaxSplits
inline constexpr i64 kMaxSplits = 16;

struct DecodePlan {
  i64 queries;         // M
  i64 padded_queries;  // to whole tiles
  i64 padded_rank;     // to whole vector groups
  i64 max_splits;
};

TS_INLINE i64 split_length(i64 context) {
  return kDecodeSplit * greater(1, ceil_div(context, kDecodeSplit * kMaxSplits));
}
TS_INLINE i64 splits_of(i64 context) {
  return context > 0 ? ceil_div(context, split_length(context)) : 0;
}

// Entries [first, last) of the row joined into `acc` [kTileRows, padded_rank] and `state`.
template <class T>
TS_INLINE void decode_tile(const MlaDecodeArgs& a, const DecodePlan& plan, i64 row, i64 m0,
                           i64 first, i64 last, float* acc, Running* state) {
  using M = Mix<T>;
  constexpr int kGroups = kTileVecs / 2;
  constexpr i64 kColumns = kGroups * 2 * kW;
  const i64 width = a.rank + a.rope;
  const i64 context = a.context_lens[row];
  const std::int32_t* const table = a.block_table + row * a.columns;
  const T* const kv = static_cast<const T*>(a.kv);

  const T* q[kTileRows];
  i64 visible[kTileRows];
  for (int i = 0; i < kTileRows; ++i) {
    const i64 m = lesser(m0 + i, plan.queries - 1);
    const i64 token = m / a.heads;
    q[i] = static_cast<const T*>(a.q) + row * a.q_row + token * a.q_token + m % a.heads * a.q_head;
    visible[i] = context - a.q_tokens + 1 + token;
    state[i] = {kNothing, 0.0f};
  }

  for (i64 c = first; c < last; c += kDecodeBlock) {
    const i64 entries = lesser(kDecodeBlock, last - c);
    const T* entry[kDecodeBlock];
    for (i64 j = 0; j < entries; ++j) {
      const i64 at = c + j;
      entry[j] = kv + table[at / a.page_size] * a.kv_page + at % a.page_size * width;
    }
    for (i64 j = entries; j < kDecodeBlock; ++j) entry[j] = entry[entries - 1];

    alignas(64) float scores[kTileRows * kDecodeBlock];
    for (i64 j = 0; j < entries; j += kDotCols) {
      for (int i = 0; i < kTileRows; i += kDotRows) {
        float out[kDotRows * kDotCols];
        dot_tile<T, kDotRows>(q + i, entry + j, width, 0, out);
        for (int r = 0; r < kDotRows; ++r) {
          for (int s = 0; s < kDotCols; ++s) {
            scores[(i + r) * kDecodeBlock + j + s] = out[r * kDotCols + s];
          }
        }
      }
    }

    alignas(64) typename M::P p[kTileRows * kDecodeBlock];
    float factor[kTileRows];
    for (int i = 0; i < kTileRows; ++i) {
      factor[i] = softmax_step(state[i], scores + i * kDecodeBlock, p + i * kDecodeBlock,
                               kDecodeBlock, lesser(entries, visible[i] - c), a.scale);
    }

    for (i64 d = 0; d < plan.padded_rank; d += kColumns) {
      const int columns = static_cast<int>(lesser(kColumns, a.rank - d));
      VF sum[kTileRows][kGroups][2];
      for (int i = 0; i < kTileRows; ++i) {
        float* const from = acc + i * plan.padded_rank + d;
        for (int g = 0; g < 2 * kGroups; ++g) {
          sum[i][g / 2][g % 2] =
              c == first ? vzero() : vmul(vload(from + g * kW), vset1(factor[i]));
        }
      }
      for (i64 j = 0; j < entries; j += M::kKeys) {
        mix_step<T>(sum, p + j, kDecodeBlock, entry[j] + d, entry[j + M::kKeys - 1] + d, columns);
      }
      for (int i = 0; i < kTileRows; ++i) {
        for (int g = 0; g < 2 * kGroups; ++g) {
          vstore(acc + i * plan.padded_rank + d + g * kW, sum[i][g / 2][g % 2]);
        }
      }
    }
  }
}

// Puts an accumulator row's columns in order (see Mix).
template <class T>
TS_INLINE void order_columns(float* acc, i64 padded_rank) {
  for (i64 d = 0; d < padded_rank; d += 2 * kW) {
    Mix<T>::store(acc + d, vload(acc + d), vload(acc + d + kW));
  }
}

template <class T>
TS_INLINE T* decode_out(const MlaDecodeArgs& a, i64 row, i64 m) {
  return static_cast<T*>(a.out) + (row * a.q_tokens * a.heads + m) * a.rank;
}

// out = acc * factor
template <class T>
TS_INLINE void store_row(T* out, const float* acc, float factor, i64 width) {
  for (i64 d = 0; d < width; d += kW) {
    vstore_n(out + d, vmul(vload(acc + d), vset1(factor)), static_cast<int>(lesser(kW, width - d)));
  }
}

template <class T>
void mla_decode(const MlaDecodeArgs& a) {
  constexpr i64 kColumns = kTileVecs * kW;
  DecodePlan plan{};
  plan.queries = a.q_tokens * a.heads;
  plan.padded_queries = ceil_div(plan.queries, kTileRows) * kTileRows;
  plan.padded_rank = ceil_div(a.rank, kColumns) * kColumns;
  for (i64 r = 0; r < a.rows; ++r) {
    plan.max_splits = greater(plan.max_splits, splits_of(a.context_lens[r]));
    if (a.context_lens[r] > 0) continue;
    for (i64 m = 0; m < plan.queries; ++m) {
      for (i64 d = 0; d < a.rank; ++d) assign(decode_out<T>(a, r, m)[d], 0.0f);
    }
  }
  if (plan.max_splits == 0 || plan.queries == 0) return;

  // Per (row, split, query): the accumulator and its state, kept only when a row has several splits.
  const i64 tiles = plan.padded_queries / kTileRows;
  const i64 tile_floats = kTileRows * plan.padded_rank;
  const bool keep = plan.max_splits > 1;
  const i64 units = a.rows * plan.max_splits * tiles;
  const i64 accumulators = keep ? units : thread_slots();
  float* const acc_base = static_cast<float*>(scratch_bytes(
      Scratch::kPartials, sizeof(float) * static_cast<std::size_t>(accumulators * tile_floats)));
  auto* const state_base = static_cast<Running*>(scratch_bytes(
      Scratch::kRows, sizeof(Running) * static_cast<std::size_t>(accumulators * kTileRows)));

  parallel_for(units, [&](i64 unit) {
    const i64 row = unit / tiles / plan.max_splits;
    const i64 split = unit / tiles % plan.max_splits;
    const i64 m0 = unit % tiles * kTileRows;
    const i64 context = a.context_lens[row];
    const i64 splits = splits_of(context);
    if (split >= splits) return;
    const i64 slot = keep ? unit : thread_index();
    float* const acc = acc_base + slot * tile_floats;
    Running* const state = state_base + slot * kTileRows;
    const i64 first = split * split_length(context);
    const i64 last = lesser(first + split_length(context), context);
    decode_tile<T>(a, plan, row, m0, first, last, acc, state);
    for (int i = 0; i < kTileRows && m0 + i < plan.queries; ++i) {
      float* const mine = acc + i * plan.padded_rank;
      order_columns<T>(mine, plan.padded_rank);
      if (splits == 1) {
        store_row(decode_out<T>(a, row, m0 + i), mine, reciprocal(state[i].sum), a.rank);
      }
    }
  });
  if (!keep) return;

  parallel_for(a.rows * plan.queries, [&](i64 index) {
    const i64 row = index / plan.queries;
    const i64 m = index % plan.queries;
    const i64 splits = splits_of(a.context_lens[row]);
    if (splits < 2) return;
    const i64 stride = tiles;  // units from one split of a row to the next
    const i64 unit = row * plan.max_splits * tiles + m / kTileRows;
    float max = kNothing;
    for (i64 s = 0; s < splits; ++s) {
      const Running& part = state_base[(unit + s * stride) * kTileRows + m % kTileRows];
      max = part.max > max ? part.max : max;
    }
    float* const total = acc_base + unit * tile_floats + m % kTileRows * plan.padded_rank;
    float sum = 0.0f;
    for (i64 s = 0; s < splits; ++s) {
      const i64 slot = (unit + s * stride) * kTileRows + m % kTileRows;
      const Running& part = state_base[slot];
      const float* const from = acc_base + slot * plan.padded_rank;
      const float weight = part.max == kNothing ? 0.0f : hmax(vexp(vset1(part.max - max)));
      sum += part.sum * weight;
      for (i64 d = 0; d < plan.padded_rank; d += kW) {
        const VF scaled = vmul(vload(from + d), vset1(weight));
        vstore(total + d, s == 0 ? scaled : vadd(vload(total + d), scaled));
      }
    }
    store_row(decode_out<T>(a, row, m), total, reciprocal(sum), a.rank);
  });
}
