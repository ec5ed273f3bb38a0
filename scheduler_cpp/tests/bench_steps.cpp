// SPDX-License-Identifier: MIT
// The work of docs/scheduler.md's profile, without Python, for a profiler to count instructions in:
//
//   bench_steps decode <sequences> <prompt tokens> <steps> [overlap depth]
//   bench_steps admit <prompts> <prompt tokens>
//   valgrind --tool=callgrind --toggle-collect='measured_*' bench_steps decode 256 8192 100
//
// What is counted runs inside measured_decode() or measured_admission().
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "ts/scheduler.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr ts::Token kVocabulary = 150'000;
constexpr std::int32_t kStepTokens = 8'192;
constexpr std::int32_t kPageSize = 64;

// The first half is everybody's, the rest the request's own (as in benchmarks/bench_scheduler.py).
std::vector<ts::Token> prompt_of(std::int64_t request, std::int32_t tokens) {
  std::vector<ts::Token> prompt(static_cast<std::size_t>(tokens));
  const std::int32_t shared = tokens / 2;
  std::iota(prompt.begin(), prompt.begin() + shared, 1);
  for (std::int64_t i = shared; i < tokens; ++i) {
    prompt[static_cast<std::size_t>(i)] =
        static_cast<ts::Token>((7'919 * (request + 1) + 31 * (i - shared)) % kVocabulary);
  }
  return prompt;
}

ts::SchedulerConfig config(std::int32_t sequences, std::int32_t length, std::int32_t overlap) {
  return {.page_size = kPageSize,
          .num_pages = (sequences + 1) * (length / kPageSize + 4) + 64,
          .max_num_seqs = sequences,
          .max_model_len = length,
          .max_num_batched_tokens = kStepTokens,
          .chunked_prefill_size = kStepTokens,
          .vocab_size = kVocabulary,
          .overlap_depth = overlap};
}

void submit(ts::Scheduler& scheduler, ts::RequestId id, const std::vector<ts::Token>& prompt,
            std::int32_t max_tokens) {
  scheduler.submit({.id = id,
                    .prompt = prompt,
                    .max_tokens = max_tokens,
                    .eos_token_ids = {},
                    .stop_token_ids = {},
                    .cache_salt = {},
                    .params = {}});
}

struct Launched {
  std::uint64_t step;
  std::size_t sampling_rows;
};

// Steps with `overlap` others in flight while one is planned.
class Stepper {
 public:
  Stepper(ts::Scheduler& scheduler, std::size_t overlap, std::size_t sequences)
      : scheduler_(scheduler), overlap_(overlap), sampled_(sequences, 5) {}

  // The rows that sampled in the step committed; 0 while the pipeline fills.
  std::size_t step() {
    if (scheduler_.plan()) {
      const ts::Plan& plan = scheduler_.plan_buffers();
      std::size_t rows = 0;
      for (std::size_t i = 0; i < plan.row_samples.size(); ++i) rows += plan.row_samples[i];
      launched_.push_back({plan.step, rows});
    }
    if (launched_.size() <= overlap_) return 0;
    const Launched oldest = launched_.front();
    launched_.pop_front();
    scheduler_.commit(oldest.step, std::span(sampled_).first(oldest.sampling_rows));
    event_bytes_ += scheduler_.drain_kv_events(0).size();
    return oldest.sampling_rows;
  }
  [[nodiscard]] std::size_t event_bytes() const { return event_bytes_; }

 private:
  ts::Scheduler& scheduler_;
  std::size_t overlap_;
  std::vector<ts::Token> sampled_;
  std::deque<Launched> launched_;
  std::size_t event_bytes_ = 0;
};

}  // namespace

extern "C" {

__attribute__((noinline)) void measured_decode(Stepper& stepper, int steps) {
  for (int i = 0; i < steps; ++i) stepper.step();
}

__attribute__((noinline)) void measured_admission(ts::Scheduler& scheduler, Stepper& stepper,
                                                  const std::vector<std::vector<ts::Token>>& all,
                                                  std::int32_t output) {
  for (std::size_t i = 0; i < all.size(); ++i) submit(scheduler, i, all[i], output);
  std::size_t first_tokens = 0;
  while (first_tokens < all.size()) first_tokens = stepper.step();
}
}

namespace {

// Enough that nobody finishes: the first sequence also decodes while others prefill.
std::int32_t output_tokens(std::int32_t sequences, std::int32_t tokens, int steps) {
  return steps + (sequences * (tokens / kStepTokens + 2)) + 64;
}

void decode(std::int32_t sequences, std::int32_t tokens, int steps, std::int32_t overlap) {
  const std::int32_t output = output_tokens(sequences, tokens, steps);
  ts::Scheduler scheduler(config(sequences, tokens + output, overlap));
  for (std::int32_t i = 0; i < sequences; ++i) {
    submit(scheduler, static_cast<ts::RequestId>(i), prompt_of(i, tokens), output);
  }
  Stepper stepper(scheduler, static_cast<std::size_t>(overlap),
                  static_cast<std::size_t>(sequences));
  while (stepper.step() < static_cast<std::size_t>(sequences)) {
  }
  const auto begin = Clock::now();
  measured_decode(stepper, steps);
  const std::chrono::duration<double, std::micro> passed = Clock::now() - begin;
  std::printf("%.2f us a step, %.1f ns a row\n", passed.count() / steps,
              1e3 * passed.count() / steps / sequences);
}

// Steady admission: as many prompts as are measured came and went before, and so did the half that
// the measured ones share.
void admit(std::int32_t prompts, std::int32_t tokens) {
  const std::int32_t output = output_tokens(prompts, tokens, 0);
  ts::SchedulerConfig twice = config(prompts, tokens + output, 0);
  twice.num_pages *= 2;
  ts::Scheduler scheduler(twice);
  Stepper stepper(scheduler, 0, static_cast<std::size_t>(prompts));
  for (std::int32_t i = 0; i < prompts; ++i) {
    std::vector<ts::Token> before = prompt_of(prompts + i, tokens);
    if (i > 0) std::ranges::reverse(before);
    submit(scheduler, static_cast<ts::RequestId>(i), before, 1);
  }
  while (scheduler.stats().running + scheduler.stats().waiting > 0) stepper.step();
  const std::int64_t matched_before = scheduler.stats().prefix_hit_tokens;
  const std::size_t event_bytes_before = stepper.event_bytes();
  std::vector<std::vector<ts::Token>> all;
  for (std::int32_t i = 0; i < prompts; ++i) all.push_back(prompt_of(i, tokens));
  const auto begin = Clock::now();
  measured_admission(scheduler, stepper, all, output);
  const std::chrono::duration<double, std::micro> passed = Clock::now() - begin;
  std::printf("%.0f us, %.1f M prompt tokens/s, %zu bytes of KV events, %lld tokens matched\n",
              passed.count(), static_cast<double>(prompts) * tokens / passed.count(),
              stepper.event_bytes() - event_bytes_before,
              static_cast<long long>(scheduler.stats().prefix_hit_tokens - matched_before));
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int at) { return std::atoi(argv[at]); };
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what == "decode" && (argc == 5 || argc == 6)) {
    decode(number(2), number(3), number(4), argc == 6 ? number(5) : 0);
  } else if (what == "admit" && argc == 4) {
    admit(number(2), number(3));
  } else {
    std::fprintf(stderr,
                 "usage: bench_steps decode <sequences> <prompt tokens> <steps> [overlap depth]\n"
                 "       bench_steps admit <prompts> <prompt tokens>\n");
    return 2;
  }
  return 0;
}
