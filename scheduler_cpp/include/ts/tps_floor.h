// SPDX-License-Identifier: MIT
// The floor of tokens per second under every decoding user: how long a step may last, how many
// prefill tokens fit into it, and what users attained.
//
// The floor holds on average. Each token pays for 1/floor seconds, and a user who is ahead lends
// the time to prefill, so that a long prompt runs in few large chunks instead of many that cost
// nearly as much. At most one stall (stall()) can be saved up, so in any time t a user gets at
// least floor * (t - stall) tokens, and no step is planned to last longer than the stall. A prefill
// under way is never put off for more than four stalls, though, whoever is below the floor.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "ts/step_cost_model.h"

namespace ts {

// Counts of rates in buckets of 1% width.
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
  // Prompt tokens that an earlier step would have computed without a floor, each counted once.
  std::int64_t held_prefill_tokens = 0;
  std::int64_t held_admissions = 0;   // steps that admitted nobody for the floor's sake
  double predicted_step_seconds = 0;  // of the last plan; 0 without a floor, or while unknown
};

class TpsFloor {
 public:
  explicit TpsFloor(double min_tps_per_user) : min_tps_(min_tps_per_user) {}
  [[nodiscard]] bool any() const { return min_tps_ > 0; }

  // A plan, in this order. `in_flight`: predicted seconds of the steps that it follows.
  void begin(double in_flight);
  // A decode row, whose user's tokens pay for the time until then; `again`: a step in flight
  // decodes for it as well.
  void decodes(double paid_until, bool again);
  // A decode row, whose user's first token is in flight.
  void decodes_next();
  // All decode rows are known.
  void limit(const StepShape& decodes);

  // Of `wanted` prefill tokens behind `start` ones, those that the step has time for beside what
  // it does already. None where a chunk is better put off: then later ones get none either, so
  // that the time saved up is the first one's.
  [[nodiscard]] std::int32_t grant(const StepShape& step, std::int32_t start, std::int32_t wanted,
                                   std::int32_t least);
  // Prompt tokens that the step would have computed without a floor.
  void hold(std::int32_t tokens, std::int32_t first_time);
  [[nodiscard]] std::int32_t held_in_step() const { return held_in_step_; }

  // May one more user with this context be admitted? Not while running prefills lack time, nor if
  // it would, once it decodes, push the others below the floor. `running`: everybody who has a
  // slot, as if all of them decoded.
  [[nodiscard]] bool admits(const StepShape& running, std::int64_t context) const;
  void hold_admission() { ++report_.held_admissions; }

  // The step is planned; its predicted seconds.
  double planned(const StepShape& shape);

  // A step of this shape took so long; 0: unknown.
  void lasted(const StepShape& shape, double seconds);
  // A step yielded so many tokens to its decode rows.
  void yielded(std::int64_t tokens, std::int32_t rows);
  [[nodiscard]] double now() const { return now_; }  // seconds that steps took, in all
  // Until when a user has paid who got so many tokens more.
  [[nodiscard]] double pay(double paid_until, std::int32_t tokens) const;
  void finished(std::int64_t output_tokens, double first_token_at);

  [[nodiscard]] FloorReport report();

 private:
  [[nodiscard]] double token_seconds() const { return 1 / min_tps_; }
  // Of a decode row: longer than a token's with speculation.
  [[nodiscard]] double row_seconds() const { return tokens_per_row_ / min_tps_; }
  // The longest stall between two tokens that prefill may cause, and what a user can save up.
  [[nodiscard]] double stall() const;
  // Does a user alone come near the floor? If not, there is nothing to be gained by holding back.
  [[nodiscard]] bool attainable(std::int64_t context) const;

  double min_tps_;
  StepCostModel model_;
  double tokens_per_row_ = 1;  // that a decode row yields: more than 1 with speculation

  // Of the step being planned.
  double in_flight_ = 0;
  double longest_ = std::numeric_limits<double>::infinity();  // seconds that it may last: infinite
                                                              // if the floor does not bind
  bool granted_ = false;                                      // some prefill tokens
  bool short_of_time_ = false;                                // and not all of them
  std::int32_t held_in_step_ = 0;

  double put_off_since_ = 0;  // when running prefills last got anything, or wanted nothing
  double now_ = 0;
  RateHistogram attained_;
  FloorReport report_;
};

}  // namespace ts
