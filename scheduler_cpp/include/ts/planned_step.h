// SPDX-License-Identifier: MIT
// A step from its planning to its commit: the plan that the execution plane reads, and what commit
// needs to know about its rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ts/config.h"
#include "ts/lifecycle.h"
#include "ts/plan.h"
#include "ts/step.h"
#include "ts/step_cost_model.h"

namespace ts {

struct PlannedStep {
  struct Row {
    SlotId slot;
    std::int32_t tokens;
    std::int32_t samples;  // tokens it yields at most: none, one, or one and its drafts
    bool decodes = false;
  };

  explicit PlannedStep(const SchedulerConfig& config);
  void clear();

  // False if the plan has no room left for the request's tokens. Its slot is told later.
  [[nodiscard]] bool admit(const Request& request, std::int32_t params_size);
  // The sequence's next tokens, computed in step `number`, which is this one, and the entries of
  // the block table that the device does not have yet.
  void add_row(Sequence& sequence, std::int32_t tokens, std::int32_t samples,
               std::int32_t page_size, StepId number);

  // Throws std::invalid_argument if this is not what the step can have yielded.
  void check_yield(std::span<const Token> sampled, std::span<const std::int32_t> counts,
                   std::int32_t vocab_size) const;

  Plan plan;
  std::vector<Row> rows;
  std::int32_t sampling_rows = 0;
  StepShape shape;
  double predicted_seconds = 0;
};

}  // namespace ts
