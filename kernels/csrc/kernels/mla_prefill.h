// SPDX-License-Identifier: MIT
//
// Latent attention in the expanded form. For each row of the step and each head, blocks of the
// context are expanded from their latents into packed keys and values, which all of the row's query
// tokens then read; causal, with an online softmax whose steps are blocks at fixed positions of the
// context. So a query's result depends on its position and its context, not on how a prompt was cut
// into chunks nor on its neighbours.

inline constexpr i64 kPrefillBlock = 64;  // keys of a softmax step: expanded, they stay in L1

// Sizes of packed operands (see Pack), padded to whole pairs and whole register tiles.
template <class T>
struct PrefillShape {
  static constexpr i64 kPair = Pack<T>::kPair;
  static constexpr i64 kColumns = kTileVecs * kW;
  i64 nope, key, value;

  explicit PrefillShape(const MlaPrefillArgs& a)
      : nope(ceil_div(a.nope, kPair) * kPair),
        key(nope + ceil_div(a.rope, kPair) * kPair),
        value(ceil_div(a.value, kColumns) * kColumns) {}

  bool padded(const MlaPrefillArgs& a) const {
    return key != a.nope + a.rope || value != a.value || nope != a.nope;
  }
};

TS_INLINE float finite_or_zero(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>((bits & 0x7f800000u) == 0x7f800000u ? 0u : bits);
}
TS_INLINE bf16 finite_or_zero(bf16 x) {
  return {static_cast<std::uint16_t>((x.bits & 0x7f80u) == 0x7f80u ? 0u : x.bits)};
}

// A head's keys [key / pair][kPrefillBlock][pair] and values [kPrefillBlock / pair][value][pair] of
// one block of the context.
template <class T>
struct ExpandedBlock {
  using E = typename Pack<T>::E;
  static constexpr i64 kPair = Pack<T>::kPair;
  E *keys, *values;

  // `products(x, w)` are dot products of rows of x with rows of w. What is contiguous in the packed
  // operand decides which of latents and weights takes the role of w: its tile columns are stored
  // side by side.
  TS_INLINE void expand(const MlaPrefillArgs& a, const PrefillShape<T>& shape, i64 row, i64 head,
                        i64 first, i64 count) const {
    if (count < kPrefillBlock || shape.padded(a)) {
      for (i64 i = 0; i < shape.key * kPrefillBlock; ++i) assign(keys[i], 0.0f);
      for (i64 i = 0; i < shape.value * kPrefillBlock; ++i) assign(values[i], 0.0f);
    }
    const i64 width = a.rank + a.rope;
    const std::int32_t* const table = a.block_table + a.slots[row] * a.table_row;
    const T* entry[kPrefillBlock];
    for (i64 j = 0; j < count; ++j) {
      const i64 at = first + j;
      entry[j] = static_cast<const T*>(a.kv) + table[at / a.page_size] * a.kv_page +
                 at % a.page_size * width;
    }
    const T* const w_k = static_cast<const T*>(a.w_kv_b) + head * (a.nope + a.value) * a.rank;
    const T* const w_v = w_k + a.nope * a.rank;
    const auto latent = [&](i64 j) { return entry[j]; };
    const auto k_row = [&](i64 d) { return w_k + d * a.rank; };
    const auto v_row = [&](i64 d) { return w_v + d * a.rank; };
    E* const k = keys;
    E* const v = values;
    const i64 value = shape.value;
    if constexpr (kPair == 2) {
      products(
          a.rank, count, a.nope, latent, k_row,
          [=](i64 j, i64 d) { return k + d * kPrefillBlock + j * 2; }, 2 * kPrefillBlock);
      products(
          a.rank, a.value, count, v_row, latent,
          [=](i64 d, i64 j) { return v + j * value + d * 2; }, 2 * value);
    } else {
      products(
          a.rank, a.nope, count, k_row, latent,
          [=](i64 d, i64 j) { return k + d * kPrefillBlock + j; }, 1);
      products(
          a.rank, count, a.value, latent, v_row, [=](i64 j, i64 d) { return v + j * value + d; },
          1);
    }
    // What is no number would spoil the queries that do not see it, too: 0 times NaN is NaN. Those
    // that see it have a NaN from its key.
    for (i64 i = 0; i < shape.value * kPrefillBlock; ++i) values[i] = finite_or_zero(values[i]);
    for (i64 j = 0; j < count; ++j) {
      for (i64 d = 0; d < a.rope; ++d) {
        const i64 at = shape.nope + d;
        assign(k[(at / kPair * kPrefillBlock + j) * kPair + at % kPair],
               to_float(entry[j][a.rank + d]));
      }
    }
  }

  // place(x, w): where the pair of outputs (x, w), (x, w + 1) goes; the next pair is `step`
  // further.
  template <class XRow, class WRow, class Place>
  static TS_INLINE void products(i64 k, i64 x_rows, i64 w_rows, const XRow& x, const WRow& w,
                                 const Place& place, i64 step) {
    const i64 block = rows_in_l1<T>(k);
    for (i64 n0 = 0; n0 < w_rows; n0 += block) {
      dot_block<T>(0, x_rows, n0, lesser(n0 + block, w_rows), k, x, w, NoFetch<T>{},
                   [&](i64 t, i64 n, int rows, int cols, float* out) TS_LAMBDA_INLINE {
                     E rounded[kTile];
                     round_tile(out, rounded);
                     for (int i = 0; i < rows; ++i) {
                       E* const to = place(t + i, n);
                       const E* const from = rounded + i * kDotCols;
                       if (cols == kDotCols) {
                         for (int c = 0; c < kDotCols; c += kPair) {
                           __builtin_memcpy(to + c / kPair * step, from + c, kPair * sizeof(E));
                         }
                       } else {
                         for (int c = 0; c < cols; ++c) to[c / kPair * step + c % kPair] = from[c];
                       }
                     }
                   });
    }
  }
};

// kTileRows queries meet one block, of which query i sees the first `visible[i]` keys.
template <class T>
TS_INLINE void attend_block(const PrefillShape<T>& shape, const ExpandedBlock<T>& block,
                            const typename Pack<T>::E* const* query, const i64* visible,
                            float scale, float* acc, Running* state) {
  using K = Pack<T>;
  constexpr i64 kPair = K::kPair;
  constexpr i64 kColumns = kTileVecs * kW;
  alignas(64) float scores[kTileRows * kPrefillBlock];
  for (i64 j = 0; j < kPrefillBlock; j += kColumns) {
    VF sum[kTileRows][kTileVecs];
    for (auto& r : sum) {
      for (VF& v : r) v = vzero();
    }
    for (i64 d = 0; d < shape.key; d += kPair) {
      typename K::Reg k[kTileVecs];
      for (int v = 0; v < kTileVecs; ++v) {
        k[v] = K::load(block.keys + d * kPrefillBlock + (j + v * kW) * kPair);
      }
      for (int i = 0; i < kTileRows; ++i) {
        const typename K::Reg q = K::broadcast(query[i] + d);
        for (int v = 0; v < kTileVecs; ++v) sum[i][v] = K::add(sum[i][v], q, k[v]);
      }
    }
    for (int i = 0; i < kTileRows; ++i) {
      for (int v = 0; v < kTileVecs; ++v) {
        vstore(scores + i * kPrefillBlock + j + v * kW, sum[i][v]);
      }
    }
  }
  alignas(64) typename K::E p[kTileRows * kPrefillBlock];
  float factor[kTileRows];
  for (int i = 0; i < kTileRows; ++i) {
    factor[i] = softmax_step(state[i], scores + i * kPrefillBlock, p + i * kPrefillBlock,
                             kPrefillBlock, lesser(visible[i], kPrefillBlock), scale);
  }
  for (i64 d = 0; d < shape.value; d += kColumns) {
    VF sum[kTileRows][kTileVecs];
    for (int i = 0; i < kTileRows; ++i) {
      for (int v = 0; v < kTileVecs; ++v) {
        sum[i][v] = vmul(vload(acc + i * shape.value + d + v * kW), vset1(factor[i]));
      }
    }
    for (i64 j = 0; j < kPrefillBlock; j += kPair) {
      typename K::Reg x[kTileVecs];
      for (int v = 0; v < kTileVecs; ++v) {
        x[v] = K::load(block.values + j * shape.value + (d + v * kW) * kPair);
      }
      for (int i = 0; i < kTileRows; ++i) {
        const typename K::Reg w = K::broadcast(p + i * kPrefillBlock + j);
        for (int v = 0; v < kTileVecs; ++v) sum[i][v] = K::add(sum[i][v], w, x[v]);
      }
    }
    for (int i = 0; i < kTileRows; ++i) {
      for (int v = 0; v < kTileVecs; ++v) {
        vstore(acc + i * shape.value + d + v * kW, sum[i][v]);
      }
    }
  }
}

// Queries [first, last) of a row and one head against the row's whole context.
template <class T>
struct PrefillUnit {
  using E = typename Pack<T>::E;
  const MlaPrefillArgs& a;
  const PrefillShape<T>& shape;
  i64 row, head, first, last;  // tokens of the step
  i64 position;                // of token `first` in its context
  ExpandedBlock<T> block;
  E* packed;       // [tokens, key], unless queries can be read where they are
  float* acc;      // [tokens padded to tiles, value]
  Running* state;  // [tokens padded to tiles]

  static bool in_place(const MlaPrefillArgs& a, const PrefillShape<T>& shape) {
    return sizeof(E) == sizeof(T) && shape.key == a.nope + a.rope && shape.nope == a.nope;
  }

  const E* query(i64 t, bool where_it_is) const {
    if constexpr (sizeof(E) == sizeof(T)) {
      if (where_it_is) {
        return static_cast<const E*>(a.q) + (first + t) * a.q_token + head * a.q_head;
      }
    }
    return packed + t * shape.key;
  }

  void pack_queries() const {
    for (i64 t = 0; t < last - first; ++t) {
      const T* const q = static_cast<const T*>(a.q) + (first + t) * a.q_token + head * a.q_head;
      E* const to = packed + t * shape.key;
      for (i64 d = 0; d < shape.key; ++d) assign(to[d], 0.0f);
      for (i64 d = 0; d < a.nope; ++d) assign(to[d], to_float(q[d]));
      for (i64 d = 0; d < a.rope; ++d) assign(to[shape.nope + d], to_float(q[a.nope + d]));
    }
  }

  void run() const {
    const i64 tokens = last - first;
    const i64 context = position + tokens;
    const bool where_they_are = in_place(a, shape);
    if (!where_they_are) pack_queries();
    for (i64 t = 0; t < ceil_div(tokens, kTileRows) * kTileRows; ++t) {
      state[t] = {kNothing, 0.0f};
      for (i64 d = 0; d < shape.value; ++d) acc[t * shape.value + d] = 0.0f;
    }
    for (i64 c = 0; c < context; c += kPrefillBlock) {
      block.expand(a, shape, row, head, c, lesser(kPrefillBlock, context - c));
      // The first tile whose last query sees the block.
      const i64 seen = greater(0, c - position) / kTileRows * kTileRows;
      for (i64 t = seen; t < tokens; t += kTileRows) {
        const E* queries[kTileRows];
        i64 visible[kTileRows];
        for (int i = 0; i < kTileRows; ++i) {
          const i64 token = lesser(t + i, tokens - 1);
          queries[i] = query(token, where_they_are);
          visible[i] = position + token + 1 - c;
        }
        attend_block<T>(shape, block, queries, visible, a.scale, acc + t * shape.value, state + t);
      }
    }
    for (i64 t = 0; t < tokens; ++t) {
      T* const out = static_cast<T*>(a.out) + ((first + t) * a.heads + head) * a.value;
      store_row(out, acc + t * shape.value, reciprocal(state[t].sum), a.value);
    }
  }
};

// Queries of a unit, at most: their accumulators stay in the L2 cache.
inline constexpr i64 kPrefillQueries = 2048;

template <class T>
void mla_prefill(const MlaPrefillArgs& a) {
  using E = typename Pack<T>::E;
  const PrefillShape<T> shape(a);
  // (row, head) is a unit. Few of them are cut into ranges of queries, each of which expands the
  // context again.
  i64 longest = 0;
  for (i64 r = 0; r < a.rows; ++r) {
    longest = greater(longest, a.query_start[r + 1] - a.query_start[r]);
  }
  const i64 wanted = ceil_div(2 * num_threads(), greater(1, a.rows * a.heads));
  const i64 parts = greater(wanted, ceil_div(longest, kPrefillQueries));
  const i64 part_tokens = greater(kTileRows, ceil_div(longest, parts));
  const i64 padded = ceil_div(part_tokens, kTileRows) * kTileRows;

  const auto aligned = [](i64 bytes) { return ceil_div(bytes, 64) * 64; };
  const i64 element = static_cast<i64>(sizeof(E));
  const i64 key_bytes = aligned(shape.key * kPrefillBlock * element);
  const i64 value_bytes = aligned(shape.value * kPrefillBlock * element);
  const i64 query_bytes =
      PrefillUnit<T>::in_place(a, shape) ? 0 : aligned(part_tokens * shape.key * element);
  const i64 acc_bytes = aligned(padded * shape.value * 4);
  const i64 state_bytes = aligned(padded * static_cast<i64>(sizeof(Running)));
  const i64 thread_bytes = key_bytes + value_bytes + query_bytes + acc_bytes + state_bytes;
  auto* const scratch = static_cast<std::uint8_t*>(
      scratch_bytes(Scratch::kPerThread, static_cast<std::size_t>(thread_bytes * thread_slots())));

  parallel_for(a.rows * a.heads * parts, [&](i64 index) {
    const i64 row = index / parts / a.heads;
    const i64 head = index / parts % a.heads;
    const i64 begin = a.query_start[row];
    const i64 end = a.query_start[row + 1];
    const i64 first = begin + index % parts * part_tokens;
    const i64 last = lesser(first + part_tokens, end);
    if (first >= last) return;
    std::uint8_t* at = scratch + thread_index() * thread_bytes;
    const auto take = [&at](i64 bytes) {
      std::uint8_t* const mine = at;
      at += bytes;
      return mine;
    };
    auto* const keys = reinterpret_cast<E*>(take(key_bytes));
    auto* const values = reinterpret_cast<E*>(take(value_bytes));
    auto* const packed = reinterpret_cast<E*>(take(query_bytes));
    auto* const acc = reinterpret_cast<float*>(take(acc_bytes));
    auto* const state = reinterpret_cast<Running*>(take(state_bytes));
    const i64 position = a.context_lens[row] - (end - first);
    PrefillUnit<T>{a, shape, row, head, first, last, position, {keys, values}, packed, acc, state}
        .run();
  });
}
