// SPDX-License-Identifier: MIT
// How long a step will take, learned from how long steps took.
//
// seconds ~ a + b * decode rows + c * prefill tokens + d * context tokens, fitted by recursive
// least squares with forgetting (Haykin, Adaptive Filter Theory, 4th ed., section 9.4), so that a
// machine that gets slower is noticed within some hundred steps.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ts {

// What a step computes, as far as its duration depends on it.
struct StepShape {
  std::int32_t decode_rows = 0;
  std::int32_t prefill_tokens = 0;
  std::int64_t context_tokens = 0;  // KV entries that its rows attend to
};

class StepCostModel {
 public:
  void learn(const StepShape& shape, double seconds);

  // False until enough steps have been seen for predictions to mean anything.
  [[nodiscard]] bool knows() const { return learned_ >= kEnough; }

  // Never negative.
  [[nodiscard]] double seconds(const StepShape& shape) const;

 private:
  static constexpr std::size_t kTerms = 4;
  static constexpr std::int64_t kEnough = 8;
  using Terms = std::array<double, kTerms>;

  [[nodiscard]] static Terms terms(const StepShape& shape);
  [[nodiscard]] double predict(const Terms& x) const;

  Terms weights_{};
  std::array<Terms, kTerms> covariance_ = identity(1e3);
  double usual_error_ = 0;  // seconds, averaged: outliers are cut to a few of it
  std::int64_t learned_ = 0;

  [[nodiscard]] static std::array<Terms, kTerms> identity(double scale);
};

}  // namespace ts
