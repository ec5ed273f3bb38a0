// SPDX-License-Identifier: MIT
// Drives a scheduler as an engine would, with every invariant checked around every call.
#pragma once

#include <map>
#include <vector>

#include "ts/scheduler.h"

namespace spec {

struct Outcome {
  std::vector<ts::Token> tokens;
  ts::FinishReason finish = ts::FinishReason::kNone;
  std::int32_t cached_tokens = -1;
};

class Driver {
 public:
  explicit Driver(const ts::SchedulerConfig& config,
                  ts::ContentHash hash_mask = ~ts::ContentHash{0})
      : scheduler(config, hash_mask) {}

  void submit(ts::RequestId id, const std::vector<ts::Token>& prompt, std::int64_t max_tokens,
              std::int64_t priority = 0) {
    submit({.id = id,
            .prompt = prompt,
            .max_tokens = max_tokens,
            .eos_token_ids = {},
            .stop_token_ids = {},
            .cache_salt = {},
            .priority = priority,
            .params = {}});
  }
  void submit(const ts::Submission& submission) {
    scheduler.submit(submission);
    scheduler.check_invariants();
  }

  bool abort(ts::RequestId id) {
    const bool ended = scheduler.abort(id);
    scheduler.check_invariants();
    return ended;
  }

  bool plan() {
    const bool planned = scheduler.plan();
    scheduler.check_invariants();
    return planned;
  }

  // Commits `token` for every sampling row of the plan made last.
  void commit(ts::Token token = 1) {
    const ts::Plan& plan = scheduler.plan_buffers();
    std::size_t samples = 0;
    for (std::size_t i = 0; i < plan.row_samples.size(); ++i) samples += plan.row_samples[i] > 0;
    commit(std::vector<ts::Token>(samples, token));
  }
  void commit(const std::vector<ts::Token>& sampled) {
    commit(scheduler.plan_buffers().step, sampled);
  }
  void commit(std::uint64_t step, const std::vector<ts::Token>& sampled,
              const std::vector<std::int32_t>& counts = {}, double seconds = 0) {
    scheduler.commit(step, sampled, counts, seconds);
    scheduler.check_invariants();
    const ts::Output& output = scheduler.output_buffers();
    for (std::size_t i = 0; i < output.request.size(); ++i) {
      Outcome& outcome = outcomes[output.request[i]];
      if (output.token[i] != ts::kNoToken) outcome.tokens.push_back(output.token[i]);
      outcome.finish = static_cast<ts::FinishReason>(output.finish[i]);
      outcome.cached_tokens = output.cached_tokens[i];
    }
  }

  void complete_transfer(std::uint64_t id, bool ok = true) {
    scheduler.complete_transfer(id, ok);
    scheduler.check_invariants();
  }

  bool step(ts::Token token = 1) {
    if (!plan()) return false;
    commit(token);
    return true;
  }
  void run() {
    while (step()) {
    }
  }

  // Tokens that the planned step computes for each slot, in row order.
  [[nodiscard]] std::vector<std::int32_t> row_tokens() {
    const auto& column = scheduler.plan_buffers().row_tokens;
    return {column.data(), column.data() + column.size()};
  }
  [[nodiscard]] std::vector<ts::RequestId> admitted() {
    const auto& column = scheduler.plan_buffers().admitted_request;
    return {column.data(), column.data() + column.size()};
  }
  [[nodiscard]] bool ended(ts::RequestId id) {
    return outcomes[id].finish != ts::FinishReason::kNone;
  }

  ts::Scheduler scheduler;
  std::map<ts::RequestId, Outcome> outcomes;
};

[[nodiscard]] inline std::vector<ts::Token> tokens(std::int32_t count, ts::Token first = 0) {
  std::vector<ts::Token> result;
  for (std::int32_t i = 0; i < count; ++i) result.push_back(first + i);
  return result;
}

}  // namespace spec
