// SPDX-License-Identifier: MIT
// The floor of tokens per second under every decoding user: how long a step may last, how many
// prefill tokens fit into it, and what users attained.
#pragma once

#include <cstdint>
#include <vector>

#include "ts/step_cost_model.h"

namespace ts {

// Durations counted in buckets of 1% width.
class RateHistogram {
 public:
  RateHistogram();
  void add(double tokens_per_second);
  [[nodiscard]] std::int64_t count() const { return count_; }
  // The rate that this fraction of users stays below; 0 without users.
  [[nodiscard]] double quantile(double fraction) const;

 private:
  std::vector<std::int64_t> buckets_;
  std::int64_t count_ = 0;
};

// What Scheduler::floor() reports.
struct FloorReport {
  std::int64_t users = 0;   // finished requests whose rate was measured
  double attained_p1 = 0;   // tokens/s: all but the slowest 1% of users had at least this
  double attained_p50 = 0;  // tokens/s
  std::int64_t held_prefill_tokens = 0;  // that steps would have computed without a floor
  std::int64_t held_admissions = 0;      // steps that admitted nobody for the floor's sake
  double predicted_step_seconds = 0;     // of the last plan; 0 while nothing is known
};

class TpsFloor {
 public:
  explicit TpsFloor(double min_tps_per_user) : min_tps_(min_tps_per_user) {}

  // Begins a plan with what must run: its decode rows.
  void begin(const StepShape& decodes);

  // Of `wanted` prefill tokens behind `start` ones, those that the step has time for. Running
  // prefills get at least `least` tokens a step between them, so that they end.
  [[nodiscard]] std::int32_t grant(std::int32_t start, std::int32_t wanted, std::int32_t least);
  // The planner took that many of the granted.
  void spend(std::int32_t start, std::int32_t tokens);

  // Would one more user with this context, once it decodes, push the others below the floor?
  // `running`: everybody who has a slot, as if all of them decoded.
  [[nodiscard]] bool admits(const StepShape& running, std::int64_t context) const;
  void hold_admission() { ++report_.held_admissions; }

  void planned(const StepShape& shape);

  // A step of this shape took so long; 0: unknown.
  void lasted(const StepShape& shape, double seconds);
  // A step yielded so many tokens to its decode rows.
  void yielded(std::int64_t tokens, std::int32_t rows);
  [[nodiscard]] double now() const { return now_; }  // seconds that steps took, in all
  void finished(std::int64_t output_tokens, double first_token_at);

  [[nodiscard]] FloorReport report() const;

 private:
  [[nodiscard]] bool binds() const { return min_tps_ > 0 && model_.knows(); }
  [[nodiscard]] double longest_step() const;

  double min_tps_;
  StepCostModel model_;
  double tokens_per_row_ = 1;  // that a decode row yields: more than 1 with speculation
  StepShape shape_;            // of the step being planned
  bool unbound_ = true;        // nobody decodes in it, or nothing is known
  bool least_granted_ = false;
  double now_ = 0;
  RateHistogram attained_;
  FloorReport report_;
};

}  // namespace ts
