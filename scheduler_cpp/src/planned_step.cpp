// SPDX-License-Identifier: MIT
#include "ts/planned_step.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace ts {

PlannedStep::PlannedStep(const SchedulerConfig& config) : plan(config) {
  rows.reserve(static_cast<std::size_t>(config.max_num_seqs));
}

void PlannedStep::clear() {
  plan.clear();
  rows.clear();
  sampling_rows = 0;
  shape = {};
}

bool PlannedStep::admit(const Request& request, std::int32_t params_size) {
  Column<Token>& tokens = plan.admitted_tokens;
  if (tokens.size() + request.tokens.size() > tokens.capacity()) return false;
  plan.admitted_request.push(request.id);
  plan.admitted_prompt_tokens.push(request.prompt_length());
  tokens.append(request.tokens);
  plan.admitted_offset.push(static_cast<std::int32_t>(tokens.size()));
  if (request.params.empty()) {
    for (std::int32_t i = 0; i < params_size; ++i) plan.admitted_params.push({});
  } else {
    plan.admitted_params.append(request.params);
  }
  return true;
}

void PlannedStep::add_row(Sequence& sequence, std::int32_t tokens, std::int32_t samples,
                          std::int32_t page_size, StepId number) {
  plan.row_slot.push(sequence.slot());
  plan.row_start.push(sequence.launched());
  plan.row_tokens.push(tokens);
  plan.row_samples.push(static_cast<std::uint8_t>(samples));
  plan.num_absorbed_rows += sequence.absorbs() ? 1 : 0;
  rows.push_back({sequence.slot(), tokens, samples});
  sampling_rows += samples > 0 ? 1 : 0;
  SequencePages& pages = sequence.pages();
  pages.written_from(sequence.launched_at_least(), page_size, number);
  for (std::int32_t column = pages.sent(); column < pages.columns(); ++column) {
    plan.page_patch.push({sequence.slot(), column, pages.page(column)});
  }
  pages.send_up_to(pages.columns());
  sequence.launch(tokens, std::max(0, samples - 1));
}

void PlannedStep::check_yield(std::span<const Token> sampled, std::span<const std::int32_t> counts,
                              std::int32_t vocab_size) const {
  auto expected = static_cast<std::int64_t>(sampling_rows);
  if (!counts.empty()) {
    if (counts.size() != static_cast<std::size_t>(sampling_rows)) {
      throw std::invalid_argument("counts has " + std::to_string(counts.size()) +
                                  " entries, but the step has " + std::to_string(sampling_rows) +
                                  " sampling rows");
    }
    std::size_t at = 0;
    for (const Row& row : rows) {
      if (row.samples == 0) continue;
      if (counts[at] < 1 || counts[at] > row.samples) {
        throw std::invalid_argument("counts[" + std::to_string(at) + "] is " +
                                    std::to_string(counts[at]) + ", but its row yields 1 to " +
                                    std::to_string(row.samples) + " tokens");
      }
      ++at;
    }
    expected = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  }
  if (static_cast<std::int64_t>(sampled.size()) != expected) {
    throw std::invalid_argument(
        "token_ids has " + std::to_string(sampled.size()) + " entries, but " +
        (counts.empty() ? "the step has " + std::to_string(expected) + " sampling rows"
                        : "counts add up to " + std::to_string(expected)));
  }
  const auto bad = std::ranges::find_if(
      sampled, [vocab_size](Token token) { return token < kNoToken || token >= vocab_size; });
  if (bad != sampled.end()) {
    throw std::invalid_argument("token_ids[" + std::to_string(bad - sampled.begin()) + "] is " +
                                std::to_string(*bad) + ", but token ids are 0 to " +
                                std::to_string(vocab_size - 1) +
                                ", or -1 where none could be sampled");
  }
}

}  // namespace ts
