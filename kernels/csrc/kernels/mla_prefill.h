// SPDX-License-Identifier: MIT
//
// Latent attention in the expanded form. For each row of the step and each head, blocks of the
// context are expanded from their latents into packed keys and values, which all of the row's query
// tokens then read; causal, with an online softmax whose steps are blocks at fixed positions of the
// context. So a query's result depends on its position and its context, not on how a prompt was cut
// into chunks nor on its neighbours.

inline constexpr i64 kPrefillBlock = 64;      // keys of a softmax step
inline constexpr i64 kPrefillExpanded = 512;  // keys expanded at a time: they stay in the L2 cache

// Widths in packed elements; see Pack for the layout.
template <class T>
struct PrefillShape {
  using E = typename Pack<T>::E;
  static constexpr i64 kPair = Pack<T>::kPair;
  static constexpr i64 kColumns = kTileVecs * kW;
  i64 nope, key, value;                   // each padded: to pairs, to pairs, to whole tiles
  i64 key_block, value_block;             // elements of a block of packed keys and values
  i64 query_tile, state_floats;           // elements of a tile of queries; floats of a query's state

  explicit PrefillShape(const MlaPrefillArgs& a)
      : nope(ceil_div(a.nope, kPair) * kPair),
        key(nope + ceil_div(a.rope, kPair) * kPair),
        value(ceil_div(a.value, kColumns) * kColumns),
        key_block(key * kPrefillBlock),
        value_block(value * kPrefillBlock),
        query_tile(kTileRows * key),
        state_floats(value) {}
};

// One block of a head's keys [key / pair][kPrefillBlock][pair] and values
// [kPrefillBlock / pair][value][pair]; keys past `entries` are zero.
template <class T>
TS_INLINE void expand_block(const MlaPrefillArgs& a, const PrefillShape<T>& shape, i64 row,
                            i64 head, i64 first, i64 entries, typename Pack<T>::E* keys,
                            typename Pack<T>::E* values) {
  constexpr i64 kPair = Pack<T>::kPair;
  const i64 width = a.rank + a.rope;
  const std::int32_t* const table = a.block_table + row * a.columns;
  const T* entry[kPrefillBlock];
  for (i64 j = 0; j < entries; ++j) {
    const i64 at = first + j;
    entry[j] = static_cast<const T*>(a.kv) + table[at / a.page_size] * a.kv_page +
               at % a.page_size * width;
  }
  if (entries < kPrefillBlock || shape.nope != a.nope || shape.key != shape.nope + a.rope ||
      shape.value != a.value) {
    for (i64 i = 0; i < shape.key_block; ++i) assign(keys[i], 0.0f);
    for (i64 i = 0; i < shape.value_block; ++i) assign(values[i], 0.0f);
  }
  const auto key_at = [&](i64 d, i64 j) { return (d / kPair * kPrefillBlock + j) * kPair + d % kPair; };
  const auto value_at = [&](i64 d, i64 j) {
    return (j / kPair * shape.value + d) * kPair + j % kPair;
  };
  const T* const w = static_cast<const T*>(a.w_kv_b) + head * (a.nope + a.value) * a.rank;
  const i64 n_block = rows_in_l1<T>(a.rank);
  for (i64 n0 = 0; n0 < a.nope + a.value; n0 += n_block) {
    dot_block<T>(
        0, entries, n0, lesser(n0 + n_block, a.nope + a.value), a.rank, 0,
        [&](i64 j) { return entry[j]; }, [&](i64 n) { return w + n * a.rank; },
        [&](i64 j, i64 n, int rows, int cols, const float* out) TS_LAMBDA_INLINE {
          for (int i = 0; i < rows; ++i) {
            for (int c = 0; c < cols; ++c) {
              const i64 d = n + c;
              const float x = out[i * kDotCols + c];
              if (d < a.nope) {
                assign(keys[key_at(d, j + i)], x);
              } else {
                assign(values[value_at(d - a.nope, j + i)], x);
              }
            }
          }
        });
  }
  for (i64 j = 0; j < entries; ++j) {
    for (i64 d = 0; d < a.rope; ++d) {
      assign(keys[key_at(shape.nope + d, j)], to_float(entry[j][a.rank + d]));
    }
  }
}

// A tile of queries meets one block: kTileRows queries, of which query i sees `visible[i]` keys.
template <class T>
TS_INLINE void attend_block(const PrefillShape<T>& shape, const typename Pack<T>::E* query,
                            const typename Pack<T>::E* keys, const typename Pack<T>::E* values,
                            const i64* visible, float scale, float* acc, Running* state) {
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
        k[v] = K::load(keys + d * kPrefillBlock + (j + v * kW) * kPair);
      }
      for (int i = 0; i < kTileRows; ++i) {
        const typename K::Reg q = K::broadcast(query + i * shape.key + d);
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
        sum[i][v] = vmul(vload(acc + i * shape.state_floats + d + v * kW), vset1(factor[i]));
      }
    }
    for (i64 j = 0; j < kPrefillBlock; j += kPair) {
      typename K::Reg x[kTileVecs];
      for (int v = 0; v < kTileVecs; ++v) {
        x[v] = K::load(values + j * shape.value + (d + v * kW) * kPair);
      }
      for (int i = 0; i < kTileRows; ++i) {
        const typename K::Reg w = K::broadcast(p + i * kPrefillBlock + j);
        for (int v = 0; v < kTileVecs; ++v) sum[i][v] = K::add(sum[i][v], w, x[v]);
      }
    }
    for (int i = 0; i < kTileRows; ++i) {
      for (int v = 0; v < kTileVecs; ++v) {
        vstore(acc + i * shape.state_floats + d + v * kW, sum[i][v]);
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
  E *keys, *values, *query;
  float* acc;      // [tokens padded to tiles, state_floats]
  Running* state;  // [tokens padded to tiles]

  void run() const {
    const i64 tokens = last - first;
    const i64 context = position + tokens;
    for (i64 t = 0; t < ceil_div(tokens, kTileRows) * kTileRows; ++t) {
      state[t] = {kNothing, 0.0f};
      for (i64 d = 0; d < shape.state_floats; ++d) acc[t * shape.state_floats + d] = 0.0f;
    }
    for (i64 c = 0; c < context; c += kPrefillExpanded) {
      const i64 end = lesser(c + kPrefillExpanded, context);
      for (i64 b = c; b < end; b += kPrefillBlock) {
        const i64 at = (b - c) / kPrefillBlock;
        expand_block<T>(a, shape, row, head, b, lesser(kPrefillBlock, end - b),
                        keys + at * shape.key_block, values + at * shape.value_block);
      }
      for (i64 t = 0; t < tokens; t += kTileRows) {
        if (position + lesser(t + kTileRows, tokens) > c) attend_tile(t, c, end);
      }
    }
    for (i64 t = 0; t < tokens; ++t) {
      T* const out = static_cast<T*>(a.out) + ((first + t) * a.heads + head) * a.value;
      store_row(out, acc + t * shape.state_floats, reciprocal(state[t].sum), a.value);
    }
  }

  void attend_tile(i64 t, i64 c, i64 end) const {
    const i64 tokens = last - first;
    for (int i = 0; i < kTileRows; ++i) {
      const i64 token = first + lesser(t + i, tokens - 1);
      const T* const q = static_cast<const T*>(a.q) + token * a.q_token + head * a.q_head;
      E* const to = query + i * shape.key;
      for (i64 d = 0; d < shape.key; ++d) assign(to[d], 0.0f);
      for (i64 d = 0; d < a.nope; ++d) assign(to[d], to_float(q[d]));
      for (i64 d = 0; d < a.rope; ++d) assign(to[shape.nope + d], to_float(q[a.nope + d]));
    }
    const i64 longest = position + lesser(t + kTileRows, tokens);  // keys that the last query sees
    for (i64 b = c; b < lesser(end, longest); b += kPrefillBlock) {
      const i64 at = (b - c) / kPrefillBlock;
      i64 visible[kTileRows];
      for (int i = 0; i < kTileRows; ++i) {
        visible[i] = position + lesser(t + i, tokens - 1) + 1 - b;
      }
      attend_block<T>(shape, query, keys + at * shape.key_block, values + at * shape.value_block,
                      visible, a.scale, acc + t * shape.state_floats, state + t);
    }
  }
};

template <class T>
void mla_prefill(const MlaPrefillArgs& a) {
  using E = typename Pack<T>::E;
  const PrefillShape<T> shape(a);
  // Heads are units; few of them are cut into ranges of queries too, which expand the context again.
  const i64 wanted = 2 * num_threads();
  const i64 parts = greater(1, wanted / greater(1, a.rows * a.heads));
  i64 longest = 0;
  for (i64 r = 0; r < a.rows; ++r) {
    longest = greater(longest, a.query_start[r + 1] - a.query_start[r]);
  }
  const i64 part_tokens = greater(kTileRows, ceil_div(longest, parts));
  const i64 padded = ceil_div(part_tokens, kTileRows) * kTileRows;

  const auto aligned = [](i64 bytes) { return ceil_div(bytes, 64) * 64; };
  const i64 element = static_cast<i64>(sizeof(E));
  const i64 blocks = kPrefillExpanded / kPrefillBlock;
  const i64 key_bytes = aligned(blocks * shape.key_block * element);
  const i64 value_bytes = aligned(blocks * shape.value_block * element);
  const i64 query_bytes = aligned(shape.query_tile * element);
  const i64 acc_bytes = aligned(padded * shape.state_floats * 4);
  const i64 state_bytes = aligned(padded * static_cast<i64>(sizeof(Running)));
  const i64 thread_bytes = key_bytes + value_bytes + query_bytes + acc_bytes + state_bytes;
  auto* const scratch = static_cast<std::uint8_t*>(scratch_bytes(
      Scratch::kPerThread, static_cast<std::size_t>(thread_bytes * thread_slots())));

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
    PrefillUnit<T>{a, shape, row, head, first, last, a.context_lens[row] - (end - first),
                   reinterpret_cast<E*>(take(key_bytes)), reinterpret_cast<E*>(take(value_bytes)),
                   reinterpret_cast<E*>(take(query_bytes)), reinterpret_cast<float*>(take(acc_bytes)),
                   reinterpret_cast<Running*>(take(state_bytes))}
        .run();
  });
}
