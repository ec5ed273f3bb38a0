// SPDX-License-Identifier: MIT
// How long a step will take, learned from how long steps took.
//
// seconds ~ w . (1, decode rows, decode context, chunks, prefill tokens, prefill context, pairs)
//
// with no weight below zero: relative least squares over the last hundred steps or so. The first
// three weights are those of steps without prefill, the others explain what steps with prefill take
// longer: a step's time is no linear function, and what is wrong about large steps shall not spoil
// small ones. Each kind is forgotten at its own pace, so that hours of decoding leave what is known
// of prefill as it was; and both faster while predictions are off all the time (a variable
// forgetting factor, Fortescue et al. 1981), so that a machine that gets slower is noticed soon.
//
// A step beside transfers between the tiers takes a multiple of that, which is learned from such
// steps, and nothing else is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ts {

// What a step computes, as far as its duration depends on it.
struct StepShape {
  std::int32_t decode_rows = 0;
  std::int64_t decode_context = 0;  // KV entries that decode rows read
  std::int32_t chunks = 0;          // rows of prefill
  std::int32_t prefill_tokens = 0;
  std::int64_t prefill_context = 0;  // KV entries that chunks read: each row expands its own once
  std::int64_t prefill_pairs = 0;    // of a chunk's token and a KV entry before it
  bool beside_transfers = false;     // between device and host tier

  [[nodiscard]] bool any_rows() const { return decode_rows > 0 || chunks > 0; }
  void add_decode(std::int64_t context) {
    ++decode_rows;
    decode_context += context;
  }
  void add_chunk(std::int64_t start, std::int32_t tokens) {
    ++chunks;
    prefill_tokens += tokens;
    prefill_context += start + tokens;
    prefill_pairs += tokens * (2 * start + tokens) / 2;
  }
};

class StepCostModel {
 public:
  void learn(const StepShape& shape, double seconds);

  // False until enough steps have been seen for predictions to mean anything.
  [[nodiscard]] bool knows() const { return learned_ >= kEnough; }

  // Never negative, and never less for more work.
  [[nodiscard]] double seconds(const StepShape& shape) const;

 private:
  static constexpr std::size_t kTerms = 7;
  static constexpr std::size_t kDecodeTerms = 3;
  static constexpr std::int64_t kEnough = 8;
  using Terms = std::array<double, kTerms>;

  // Sums over steps, older ones counting less: of the products of two terms, and of a term and the
  // seconds.
  struct Sums {
    std::array<Terms, kTerms> terms{};
    Terms seconds{};
    void add(const Terms& x, double seconds, double weight, double forget);
  };

  [[nodiscard]] static Terms terms(const StepShape& shape);
  void learn_beside(StepShape shape, double seconds);
  // Fits the weights from `begin` to `end`, given those before them.
  void fit(const Sums& sums, std::size_t begin, std::size_t end);

  Sums decodes_;   // steps without prefill
  Sums prefills_;  // steps with some
  Terms weights_{};
  double beside_ = 1;  // times as long as alone
  double error_ = 0;   // of predictions, relative, averaged over some steps
  std::int64_t learned_ = 0;
};

}  // namespace ts
