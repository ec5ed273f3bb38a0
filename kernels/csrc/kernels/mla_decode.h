// SPDX-License-Identifier: MIT
//
// Latent attention in the absorbed form, over pages in place.
//
// The query tokens of a row and its heads form M = q_tokens * heads query rows that read the same
// entries. A unit of work is (row, split, tile of query rows): a split is a range of the context
// whose bounds depend on that context's length alone, so a row's result does not depend on its
// neighbours. Splits are combined in order by their log-sum-exp.

inline constexpr i64 kDecodeBlock = 128;  // entries of one softmax step: two blocks fit in L2
inline constexpr i64 kMinSplit = 256;     // entries
inline constexpr i64 kMaxSplits = 16;     // of a row

// Query rows are dealt with in tiles of kRows; two shapes of tile compute the same numbers.
struct DecodePlan {
  i64 queries;      // M
  i64 tiles;        // of kRows query rows, the last one padded
  i64 padded_rank;  // to whole vector groups
  i64 max_splits;
};

TS_INLINE i64 split_length(i64 context) {
  return kMinSplit * greater(1, ceil_div(context, kMinSplit * kMaxSplits));
}
TS_INLINE i64 splits_of(i64 context) {
  return context > 0 ? ceil_div(context, split_length(context)) : 0;
}

// A block of entries of one row, where they are.
template <class T>
struct EntryBlock {
  const T* entry[kDecodeBlock + 8];  // the last one repeated, so that tiles may run over
  i64 first, count;

  TS_INLINE EntryBlock(const MlaDecodeArgs& a, i64 row, i64 from, i64 to)
      : first(from), count(to - from) {
    const std::int32_t* const table = a.block_table + a.slots[row] * a.table_row;
    i64 page = from / a.page_size;
    i64 offset = from % a.page_size;
    const i64 width = a.rank + a.rope;
    for (i64 j = 0; j < count; ++page, offset = 0) {
      const T* at = static_cast<const T*>(a.kv) + table[page] * a.kv_page + offset * width;
      for (; offset < a.page_size && j < count; ++offset, ++j, at += width) entry[j] = at;
    }
    for (i64 j = count; j < kDecodeBlock + 8; ++j) entry[j] = entry[count - 1];
  }
};

template <class T>
TS_INLINE void fetch_entry(const T* entry, i64 width) {
  constexpr i64 kLine = 64 / static_cast<i64>(sizeof(T));
  for (i64 d = 0; d < width; d += kLine) __builtin_prefetch(entry + d);
}

// kRows query rows of one row, from m0 on, meet a block of entries. `acc` [kRows, padded_rank] and
// `state` [kRows] hold what came before. The first tile to meet a block brings it into the caches,
// and the `next` block while its own values are mixed; for the other tiles `next` is null.
template <class T, int kRows>
TS_INLINE void decode_tile(const MlaDecodeArgs& a, const DecodePlan& plan,
                           const EntryBlock<T>& block, const EntryBlock<T>* next, i64 row, i64 m0,
                           float* acc, Running* state) {
  using M = Mix<T>;
  const i64 width = a.rank + a.rope;
  const T* q[kRows];
  i64 visible[kRows];
  for (int i = 0; i < kRows; ++i) {
    const i64 m = lesser(m0 + i, plan.queries - 1);
    const i64 token = m / a.heads;
    q[i] = static_cast<const T*>(a.q) + row * a.q_row + token * a.q_token + m % a.heads * a.q_head;
    visible[i] = lesser(block.count, a.context_lens[row] - a.q_tokens + 1 + token - block.first);
  }

  alignas(64) float scores[kRows * kDecodeBlock];
  for (i64 j = 0; j < block.count; j += kDotCols) {
    if (next != nullptr) {
      for (int s = 0; s < kDotCols; ++s) fetch_entry(block.entry[j + 2 * kDotCols + s], width);
    }
    for (int i = 0; i < kRows; i += kDotRows) {
      float out[kTile];
      dot_tile<T, kDotRows>(q + i, block.entry + j, width, nullptr, out);
      for (int r = 0; r < kDotRows; ++r) {
        __builtin_memcpy(scores + (i + r) * kDecodeBlock + j, out + r * kDotCols,
                         kDotCols * sizeof(float));
      }
    }
  }

  alignas(64) typename M::P probabilities[kRows * kDecodeBlock];
  const typename M::P* p[kRows];
  float factor[kRows];
  const i64 padded = ceil_div(block.count, 2 * kW) * 2 * kW;
  for (int i = 0; i < kRows; ++i) {
    p[i] = probabilities + i * kDecodeBlock;
    factor[i] = softmax_step(state[i], scores + i * kDecodeBlock, probabilities + i * kDecodeBlock,
                             padded, visible[i], a.scale);
  }

  using Tile = MixTile<T, kRows, kRows == kMixRows ? 1 : 2>;
  const auto mix = [&](i64 d, i64 columns) TS_LAMBDA_INLINE {
    Tile sum;
    if (block.first % split_length(a.context_lens[row]) == 0) {
      sum.clear();
    } else {
      sum.load(acc + d, plan.padded_rank, factor);
    }
    for (i64 j = 0; j < block.count; j += M::kKeys) {
      if (next != nullptr) {
        for (i64 i = 0; i < M::kKeys; ++i) {
          fetch_columns<T, Tile::kColumns>(next->entry[j + i] + d);
        }
      }
      sum.add(p, j, block.entry[j] + d, block.entry[j + M::kKeys - 1] + d, columns);
    }
    sum.store(acc + d, plan.padded_rank);
  };
  i64 d = 0;
  for (; d + Tile::kColumns <= a.rank; d += Tile::kColumns) mix(d, Tile::kColumns);
  if (d < a.rank) mix(d, a.rank - d);
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

// Where units leave their accumulators, and each query row's maximum and sum. They are kept for the
// second pass when some row has several splits, else each thread reuses its own.
struct DecodeScratch {
  float* acc;
  Running* state;
  bool keep;
  i64 slot(i64 unit) const { return keep ? unit : thread_index(); }
};

// The first block of a split.
template <class T>
TS_INLINE EntryBlock<T> first_block(const MlaDecodeArgs& a, i64 row, i64 split) {
  const i64 context = a.context_lens[row];
  const i64 first = split * split_length(context);
  return EntryBlock<T>(a, row, first, lesser(first + kDecodeBlock, context));
}

// Tiles [tile0, tile1) of one (row, split). `later`: the block that this thread is likely to begin
// with after it.
template <class T, int kRows>
TS_INLINE void decode_unit(const MlaDecodeArgs& a, const DecodePlan& plan, i64 row, i64 split,
                           i64 tile0, i64 tile1, const EntryBlock<T>& later, float* acc,
                           Running* state) {
  const i64 context = a.context_lens[row];
  const i64 length = split_length(context);
  const i64 first = split * length;
  const i64 last = lesser(first + length, context);
  for (i64 i = 0; i < (tile1 - tile0) * kRows; ++i) state[i] = {kNothing, 0.0f};
  EntryBlock<T> block = first_block<T>(a, row, split);
  for (i64 c = first; c < last; c += kDecodeBlock) {
    const i64 end = lesser(c + kDecodeBlock, last);
    const EntryBlock<T> next =
        end < last ? EntryBlock<T>(a, row, end, lesser(end + kDecodeBlock, last)) : later;
    for (i64 tile = tile0; tile < tile1; ++tile) {
      const i64 at = (tile - tile0) * kRows;
      decode_tile<T, kRows>(a, plan, block, tile == tile0 ? &next : nullptr, row, tile * kRows,
                            acc + at * plan.padded_rank, state + at);
    }
    block = next;
  }
  for (i64 i = 0; i < (tile1 - tile0) * kRows; ++i) {
    order_columns<T>(acc + i * plan.padded_rank, plan.padded_rank);
  }
}

// A query row's splits in order, each weighed by its share of the whole sum.
template <class T, int kRows>
TS_INLINE void combine_splits(const MlaDecodeArgs& a, const DecodePlan& plan,
                              const DecodeScratch& scratch, i64 row, i64 m) {
  const i64 splits = splits_of(a.context_lens[row]);
  const auto at = [&](i64 s) { return (row * plan.max_splits + s) * plan.tiles * kRows + m; };
  float max = kNothing;
  for (i64 s = 0; s < splits; ++s) {
    const float part = scratch.state[at(s)].max;
    max = part > max ? part : max;
  }
  float* const total = scratch.acc + at(0) * plan.padded_rank;
  float sum = 0.0f;
  for (i64 s = 0; s < splits; ++s) {
    const Running& part = scratch.state[at(s)];
    const float* const from = scratch.acc + at(s) * plan.padded_rank;
    const float weight = part.max == kNothing ? 0.0f : hmax(vexp(vset1(part.max - max)));
    sum += part.sum * weight;
    for (i64 d = 0; d < plan.padded_rank; d += kW) {
      const VF scaled = vmul(vload(from + d), vset1(weight));
      vstore(total + d, s == 0 ? scaled : vadd(vload(total + d), scaled));
    }
  }
  store_row(decode_out<T>(a, row, m), total, reciprocal(sum), a.rank);
}

template <class T, int kRows>
void decode_rows(const MlaDecodeArgs& a, DecodePlan plan) {
  plan.tiles = ceil_div(plan.queries, kRows);
  const bool keep = plan.max_splits > 1;
  // Tiles of one unit read the entries from the L2 cache; with few units they are spread instead.
  const bool spread = a.rows * plan.max_splits < 2 * num_threads();
  const i64 tiles_per_unit = spread ? 1 : plan.tiles;
  const i64 groups = plan.tiles / tiles_per_unit;
  const i64 units = a.rows * plan.max_splits * groups;
  const i64 unit_rows = tiles_per_unit * kRows;
  const i64 kept = (keep ? units : thread_slots()) * unit_rows;
  const DecodeScratch scratch{
      static_cast<float*>(scratch_bytes(
          Scratch::kPartials, sizeof(float) * static_cast<std::size_t>(kept * plan.padded_rank))),
      static_cast<Running*>(
          scratch_bytes(Scratch::kRows, sizeof(Running) * static_cast<std::size_t>(kept))),
      keep};

  parallel_for(units, [&](i64 unit) {
    const i64 row = unit / groups / plan.max_splits;
    const i64 split = unit / groups % plan.max_splits;
    const i64 tile0 = unit % groups * tiles_per_unit;
    const i64 splits = splits_of(a.context_lens[row]);
    if (split >= splits) return;
    const i64 slot = scratch.slot(unit) * unit_rows;
    float* const acc = scratch.acc + slot * plan.padded_rank;
    Running* const state = scratch.state + slot;
    const i64 after = lesser(unit + num_threads(), units - 1) / groups;
    const i64 later_row = after / plan.max_splits;
    const i64 later_split = after % plan.max_splits;
    const bool exists = later_split < splits_of(a.context_lens[later_row]);
    decode_unit<T, kRows>(
        a, plan, row, split, tile0, tile0 + tiles_per_unit,
        exists ? first_block<T>(a, later_row, later_split) : first_block<T>(a, row, split), acc,
        state);
    if (splits > 1) return;
    for (i64 i = 0; i < unit_rows && tile0 * kRows + i < plan.queries; ++i) {
      store_row(decode_out<T>(a, row, tile0 * kRows + i), acc + i * plan.padded_rank,
                reciprocal(state[i].sum), a.rank);
    }
  });
  if (!keep) return;
  parallel_for(a.rows * plan.queries, [&](i64 index) {
    const i64 row = index / plan.queries;
    if (splits_of(a.context_lens[row]) > 1) {
      combine_splits<T, kRows>(a, plan, scratch, row, index % plan.queries);
    }
  });
}

inline constexpr i64 kPartialBytes = 32 << 20;  // of accumulators that wait to be combined

// Rows [first, last).
TS_INLINE MlaDecodeArgs decode_part(const MlaDecodeArgs& a, i64 first, i64 last, i64 q_bytes,
                                    i64 out_bytes) {
  MlaDecodeArgs part = a;
  part.q = static_cast<const std::uint8_t*>(a.q) + first * q_bytes;
  part.out = static_cast<std::uint8_t*>(a.out) + first * out_bytes;
  part.slots += first;
  part.context_lens += first;
  part.rows = last - first;
  return part;
}

// As many rows as leave no more than kPartialBytes to be combined: a long prompt's tokens are many
// rows of many splits.
template <class T>
void decode_part_rows(const MlaDecodeArgs& a) {
  DecodePlan plan{};
  plan.queries = a.q_tokens * a.heads;
  plan.padded_rank = ceil_div(a.rank, 4 * kW) * 4 * kW;
  for (i64 r = 0; r < a.rows; ++r) {
    plan.max_splits = greater(plan.max_splits, splits_of(a.context_lens[r]));
    if (a.context_lens[r] > 0) continue;
    for (i64 m = 0; m < plan.queries; ++m) {
      for (i64 d = 0; d < a.rank; ++d) assign(decode_out<T>(a, r, m)[d], 0.0f);
    }
  }
  const i64 units = a.rows * plan.max_splits * ceil_div(plan.queries, kMixRows);
  if (units == 0) return;
  if (plan.queries <= kFewRows || units < num_threads()) {
    decode_rows<T, kFewRows>(a, plan);
  } else {
    decode_rows<T, kMixRows>(a, plan);
  }
}

template <class T>
void mla_decode(const MlaDecodeArgs& a) {
  const i64 queries = a.q_tokens * a.heads;
  const i64 split_bytes = queries * a.rank * static_cast<i64>(sizeof(float));
  const i64 element = static_cast<i64>(sizeof(T));
  for (i64 first = 0, last; first < a.rows; first = last) {
    i64 bytes = 0;
    for (last = first; last < a.rows && (last == first || bytes < kPartialBytes); ++last) {
      bytes += splits_of(a.context_lens[last]) * split_bytes;
    }
    decode_part_rows<T>(decode_part(a, first, last, a.q_row * element, queries * a.rank * element));
  }
}
