// SPDX-License-Identifier: MIT
// Seeded random workloads on tiny pools: arrivals, aborts, retraction, shared prefixes. Every
// invariant is checked after every call, every request ends exactly once with all its tokens, and
// the same seed gives the same plans. `test_simulation <first seed> <seeds>` runs others.
#include <random>

#include "driver.h"
#include "spec.h"

using namespace ts;
using spec::Driver;

namespace {

std::uint64_t first_seed = 1;
std::uint64_t seeds = 40;

class Workload {
 public:
  explicit Workload(std::uint64_t seed) : random_(seed), driver_(config()) {}

  // A digest of every plan.
  std::uint64_t run() {
    for (int i = 0; i < 150; ++i) {
      if (chance(3)) submit();
      if (chance(12)) abort();
      step();
    }
    while (step()) {
    }
    for (const auto& [id, length] : lengths_) {
      EXPECT(driver_.ended(id));
      EXPECT(driver_.outcomes[id].tokens.size() == length);
    }
    const Stats stats = driver_.scheduler.stats();
    EXPECT(stats.waiting == 0 && stats.running == 0 && stats.pages_used == 0);
    return digest_;
  }

 private:
  SchedulerConfig config() {
    SchedulerConfig config{.page_size = pick(1, 4),
                           .max_num_seqs = pick(1, 5),
                           .max_model_len = pick(8, 40),
                           .vocab_size = 8};
    config.num_pages = pages_per_sequence(config) + pick(0, 12);
    config.max_num_batched_tokens = config.max_num_seqs + pick(0, 16);
    config.chunked_prefill_size = pick(1, 12);
    config.enable_prefix_caching = !chance(5);
    return config;
  }

  void submit() {
    const SchedulerConfig& config = driver_.scheduler.config();
    std::vector<Token> prompt;
    const std::int32_t length = pick(1, config.max_model_len - 1);
    const std::int32_t shared = pick(0, length);
    for (std::int32_t i = 0; i < length; ++i) prompt.push_back(i < shared ? i % 8 : pick(0, 7));
    const std::int32_t max_tokens = pick(1, 20);
    const RequestId id = next_id_++;
    lengths_[id] = static_cast<std::size_t>(std::min(max_tokens, config.max_model_len - length));
    driver_.submit(id, prompt, max_tokens, pick(0, 1));
  }

  void abort() {
    const RequestId id = static_cast<RequestId>(pick(0, static_cast<int>(next_id_)));
    const bool alive = lengths_.contains(id) && !driver_.ended(id);
    EXPECT(driver_.abort(id) == alive);
    if (alive) lengths_.erase(id);
  }

  bool step() {
    if (!driver_.plan()) return false;
    const Plan& plan = driver_.scheduler.plan_buffers();
    mix(plan.row_slot), mix(plan.row_start), mix(plan.row_tokens);
    for (std::size_t i = 0; i < plan.page_patch.size(); ++i) {
      digest_ = digest_ * 31 + static_cast<std::uint64_t>(plan.page_patch[i].page);
    }
    if (chance(10)) abort();
    driver_.commit(static_cast<Token>(pick(0, 7)));
    return true;
  }

  void mix(const Column<std::int32_t>& column) {
    for (std::size_t i = 0; i < column.size(); ++i) {
      digest_ = digest_ * 31 + static_cast<std::uint64_t>(column[i]);
    }
  }

  std::int32_t pick(std::int32_t low, std::int32_t high) {
    return low + static_cast<std::int32_t>(random_() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool chance(std::int32_t one_in) { return pick(1, one_in) == 1; }

  std::mt19937_64 random_;
  Driver driver_;
  std::map<RequestId, std::size_t> lengths_;  // of the outputs to come, but of aborted requests
  RequestId next_id_ = 0;
  std::uint64_t digest_ = 0;
};

}  // namespace

SPEC("any workload on any pool that holds its largest request ends, and repeats exactly") {
  for (std::uint64_t seed = first_seed; seed < first_seed + seeds; ++seed) {
    const int before = spec::failures;
    std::string error;
    try {
      EXPECT(Workload(seed).run() == Workload(seed).run());
    } catch (const std::exception& violated) {
      error = violated.what();
    }
    if (spec::failures > before || !error.empty()) {
      spec::fail(__FILE__, __LINE__, "seed " + std::to_string(seed) + " " + error);
      return;
    }
  }
}
