// SPDX-License-Identifier: MIT
//
// Choosing tokens: penalties of what was seen, and the most likely token of a row. One pass each
// over the vocabulary, written so that the compiler makes vectors of it. Part of isa.h.

constexpr i64 kAtOnce = 64;  // logits, between two decisions

// Numbers in the order of the floats, NaNs aside; the same again gives the float back.
TS_INLINE std::int32_t ordered(float logit) {
  const auto bits = std::bit_cast<std::int32_t>(logit);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
TS_INLINE std::int32_t magnitude(float logit) {
  return std::bit_cast<std::int32_t>(logit) & 0x7fffffff;
}

inline i64 most_likely_of(const float* logits, i64 vocab) {
  constexpr std::int32_t kInfinity = 0x7f800000;
  std::int32_t largest = ordered(logits[0]);
  std::int32_t magnitudes = 0;
  i64 begin = 0;  // of the part that has the first of the largest
  for (i64 at = 0; at < vocab; at += kAtOnce) {
    const i64 end = lesser(at + kAtOnce, vocab);
    std::int32_t here = largest;
    for (i64 i = at; i < end; ++i) {
      const std::int32_t logit = ordered(logits[i]);
      here = logit > here ? logit : here;
      const std::int32_t size = magnitude(logits[i]);
      magnitudes = size > magnitudes ? size : magnitudes;
    }
    begin = here > largest ? at : begin;
    largest = here;
  }
  if (magnitudes > kInfinity) return -1;  // a NaN
  const float winner = std::bit_cast<float>(ordered(std::bit_cast<float>(largest)));
  if (magnitude(winner) == kInfinity) return -1;
  if (winner == 0) begin = 0;  // -0 is as large
  while (logits[begin] != winner) ++begin;
  return begin;
}

inline void most_likely(const MostLikelyArgs& a) {
  const i64 rows_at_once = greater(1, 16384 / greater(1, a.vocab));
  parallel_for(ceil_div(a.rows, rows_at_once), [&](i64 chunk) {
    const i64 end = lesser(a.rows, (chunk + 1) * rows_at_once);
    for (i64 row = chunk * rows_at_once; row < end; ++row) {
      a.ids[row] = most_likely_of(a.logits + (row * a.row), a.vocab);
    }
  });
}

// First what was seen is divided (or multiplied), then what was generated is made smaller. A count
// is twice how often a token was generated, plus one if it stands in the prompt.
inline void penalise_row(float* logits, const std::int32_t* counts, i64 vocab, float presence,
                         float frequency, float repetition) {
  for (i64 at = 0; at < vocab; at += kAtOnce) {
    const i64 end = lesser(at + kAtOnce, vocab);
    std::int32_t any = 0;
    for (i64 i = at; i < end; ++i) any |= counts[i];
    if (any == 0) continue;  // most of a vocabulary is in no text
    for (i64 i = at; i < end; ++i) {
      const float logit = logits[i];
      const float divided = logit / repetition;
      const float repeated = logit > 0 ? divided : logit * repetition;
      const std::int32_t generated = counts[i] >> 1;
      const float less = repeated - (frequency * static_cast<float>(generated));
      const float penalised = less - (generated != 0 ? presence : 0.0f);
      logits[i] = counts[i] != 0 ? penalised : logit;
    }
  }
}

inline void penalise(const PenaliseArgs& a) {
  parallel_for(a.rows, [&](i64 i) {
    penalise_row(a.logits + (a.row[i] * a.vocab), a.counts + (a.slot[i] * a.vocab), a.vocab,
                 a.presence[i], a.frequency[i], a.repetition[i]);
  });
}
