// SPDX-License-Identifier: MIT
//
// A mixture of experts: gate-up, silu and down over the experts that have tokens, and no others.
// (token, expert) pairs are sorted by expert, so that an expert's weights are read once however
// many tokens chose it. Three passes: hidden = silu(gate) * up · y = down(hidden) · sum over each
// token's experts in the order of its ids, in fp32.

struct ExpertPairs {
  i64 per_token;  // top_k + shared
  i64* offset;    // [experts + 1] into `pair`
  i64* pair;      // token * per_token + slot, sorted by expert; shared experts fill the last slots
};

TS_INLINE ExpertPairs sort_by_expert(const MoeArgs& a) {
  const i64 per_token = a.top_k + a.shared;
  const i64 routed = a.experts - a.shared;
  auto* const memory = static_cast<i64*>(
      scratch_bytes(Scratch::kPairs,
                    sizeof(i64) * static_cast<std::size_t>(a.experts + 2 + a.tokens * per_token)));
  i64* const cursor = memory;  // cursor[e + 2] counts; cursor[e + 1] then moves to the end of e
  i64* const pair = memory + a.experts + 2;
  for (i64 e = 0; e < a.experts + 2; ++e) cursor[e] = e < routed + 2 ? 0 : a.tokens;
  for (i64 i = 0; i < a.tokens * a.top_k; ++i) ++cursor[a.ids[i] + 2];
  for (i64 e = 2; e < a.experts + 2; ++e) cursor[e] += cursor[e - 1];
  for (i64 t = 0; t < a.tokens; ++t) {
    for (i64 j = 0; j < per_token; ++j) {
      const i64 e = j < a.top_k ? a.ids[t * a.top_k + j] : routed + j - a.top_k;
      pair[cursor[e + 1]++] = t * per_token + j;
    }
  }
  return {per_token, cursor, pair};
}

struct ExpertUnit {
  std::int32_t expert, block;  // block of weight rows
  i64 first, last;             // pairs
};

// Splits each expert's work into blocks of rows and of pairs.
TS_INLINE i64 plan_units(const MoeArgs& a, const ExpertPairs& sorted, i64 row_blocks,
                         ExpertUnit* units) {
  i64 count = 0;
  for (i64 e = 0; e < a.experts; ++e) {
    for (i64 p = sorted.offset[e]; p < sorted.offset[e + 1]; p += kTokenBlock) {
      for (i64 b = 0; b < row_blocks; ++b) {
        if (units != nullptr) {
          units[count] = {static_cast<std::int32_t>(e), static_cast<std::int32_t>(b), p,
                          lesser(p + kTokenBlock, sorted.offset[e + 1])};
        }
        ++count;
      }
    }
  }
  return count;
}

// body(unit, next): `next` is the unit that this thread is likely to get after it, or null.
template <class Body>
void for_each_expert_unit(const MoeArgs& a, const ExpertPairs& sorted, i64 row_blocks,
                          const Body& body) {
  const i64 count = plan_units(a, sorted, row_blocks, nullptr);
  auto* const units = static_cast<ExpertUnit*>(
      scratch_bytes(Scratch::kUnits, sizeof(ExpertUnit) * static_cast<std::size_t>(count)));
  plan_units(a, sorted, row_blocks, units);
  const i64 later = num_threads();
  parallel_for(count, [&](i64 index) {
    const ExpertUnit* const next = index + later < count ? units + index + later : nullptr;
    body(units[index], next);
  });
}

// Tile columns alternate: two gate rows, then the two up rows that belong to them.
template <class T>
struct GateUpRows {
  const T* gate;
  i64 hidden, inner, first;
  TS_INLINE const T* operator()(i64 n) const {
    const i64 i = lesser(first + n / 4 * 2 + n % 2, inner - 1);
    return gate + (n % 4 < 2 ? i : inner + i) * hidden;
  }
};

// What a unit wants next: tile columns `skip` further on, and after its `columns` those of the unit
// that follows; see dot_block.
template <class T>
struct GateUpAhead {
  static constexpr bool kNear = true;
  const GateUpRows<T>&rows, &later;
  i64 skip, columns;
  TS_INLINE bool has_far() const { return true; }
  TS_INLINE const T* near(i64 n) const {
    return n + skip < columns ? rows(n + skip) : later(n + skip - columns);
  }
  TS_INLINE const T* far(i64 n) const { return later(n); }
};

template <class T>
void expert_gate_up(const MoeArgs& a, const ExpertPairs& sorted, T* hidden) {
  const T* const x = static_cast<const T*>(a.x);
  const T* const weight = static_cast<const T*>(a.w_gate_up);
  const i64 inner = a.intermediate;
  const i64 block = greater(rows_in_l1<T>(a.hidden) / 2, kDotCols);
  const auto rows_of = [&](const ExpertUnit& u) {
    return GateUpRows<T>{weight + u.expert * 2 * inner * a.hidden, a.hidden, inner,
                         u.block * block};
  };
  for_each_expert_unit(
      a, sorted, ceil_div(inner, block), [&](const ExpertUnit& u, const ExpertUnit* next) {
        const GateUpRows<T> w = rows_of(u);
        const GateUpRows<T> w_next = rows_of(next == nullptr ? u : *next);
        const i64 columns = ceil_div(lesser(block, inner - w.first), 2) * 4;
        dot_block<T>(
            u.first, u.last, 0, columns, a.hidden,
            [&](i64 p) { return x + sorted.pair[p] / sorted.per_token * a.hidden; },
            [&](i64 n) { return w(n); },
            GateUpAhead<T>{w, w_next,
                           2 * ceil_div(rows_ahead<T>(u.last - u.first, a.hidden), 2) * 2, columns},
            [&](i64 p, i64 n, int rows, int, const float* out) TS_LAMBDA_INLINE {
              float gated[kTile];  // of the up rows too: one instruction takes them all
              for (int i = 0; i < kTile; i += kW) vstore(gated + i, vsilu(vload(out + i)));
              const i64 i0 = w.first + n / 2;
              for (int r = 0; r < rows; ++r) {
                for (int j = 0; j < 2 && i0 + j < inner; ++j) {
                  const int at = r * kDotCols + j;
                  assign(hidden[(p + r) * inner + i0 + j], gated[at] * out[at + 2]);
                }
              }
            });
      });
}

// y[pair] = down(hidden[pair]), at the pair's place in token order
template <class T>
void expert_down(const MoeArgs& a, const ExpertPairs& sorted, const T* hidden, float* y) {
  const T* const weight = static_cast<const T*>(a.w_down);
  const i64 block = rows_in_l1<T>(a.intermediate);
  const auto matrix = [&](const ExpertUnit& u) {
    return weight + u.expert * a.hidden * a.intermediate;
  };
  for_each_expert_unit(
      a, sorted, ceil_div(a.hidden, block), [&](const ExpertUnit& u, const ExpertUnit* next) {
        const T* const w = matrix(u);
        const i64 n0 = u.block * block;
        const i64 far = next == nullptr ? 0
                                        : (matrix(*next) - w) / a.intermediate +
                                              (next->block - u.block) * block;
        dot_block<T>(
            u.first, u.last, n0, lesser(n0 + block, a.hidden), a.intermediate,
            [&](i64 p) { return hidden + p * a.intermediate; },
            [&](i64 n) { return w + n * a.intermediate; },
            RowsAhead<T>{w, a.intermediate, rows_ahead<T>(u.last - u.first, a.intermediate),
                         n0 + block, block, far},
            [&](i64 p, i64 n, int rows, int cols, const float* out) TS_LAMBDA_INLINE {
              for (int i = 0; i < rows; ++i) {
                float* const to = y + sorted.pair[p + i] * a.hidden + n;
                for (int j = 0; j < cols; ++j) to[j] = out[i * kDotCols + j];
              }
            });
      });
}

template <class T>
void sum_experts(const MoeArgs& a, const float* y) {
  T* const out = static_cast<T*>(a.out);
  const i64 per_token = a.top_k + a.shared;
  const i64 block = greater(1, (1 << 15) / (a.hidden * per_token));
  parallel_for(ceil_div(a.tokens, block), [&](i64 index) {
    for (i64 t = index * block; t < lesser((index + 1) * block, a.tokens); ++t) {
      for (i64 d = 0; d < a.hidden; d += kW) {
        const int n = static_cast<int>(lesser(kW, a.hidden - d));
        VF sum = vzero();
        for (i64 j = 0; j < per_token; ++j) {
          const float weight = j < a.top_k ? a.weights[t * a.top_k + j] : 1.0f;
          sum = vfma(vset1(weight), vload_n(y + (t * per_token + j) * a.hidden + d, n), sum);
        }
        vstore_n(out + t * a.hidden + d, sum, n);
      }
    }
  });
}

// Tokens whose intermediate results are held at a time.
inline constexpr i64 kMoeTokens = 2048;

template <class T>
void moe_experts(const MoeArgs& all) {
  for (i64 t = 0; t < all.tokens; t += kMoeTokens) {
    MoeArgs a = all;
    a.tokens = lesser(kMoeTokens, all.tokens - t);
    a.x = static_cast<const T*>(all.x) + t * a.hidden;
    a.out = static_cast<T*>(all.out) + t * a.hidden;
    a.weights += t * a.top_k;
    a.ids += t * a.top_k;
    const auto pairs = static_cast<std::size_t>(a.tokens * (a.top_k + a.shared));
    const ExpertPairs sorted = sort_by_expert(a);
    auto* const hidden = static_cast<T*>(scratch_bytes(
        Scratch::kRows, pairs * static_cast<std::size_t>(a.intermediate) * sizeof(T)));
    auto* const y = static_cast<float*>(scratch_bytes(
        Scratch::kPartials, pairs * static_cast<std::size_t>(a.hidden) * sizeof(float)));
    expert_gate_up<T>(a, sorted, hidden);
    expert_down<T>(a, sorted, hidden, y);
    sum_experts<T>(a, y);
  }
}
