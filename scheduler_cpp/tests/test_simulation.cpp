// SPDX-License-Identifier: MIT
// Seeded random workloads on tiny pools: arrivals, aborts, retraction, shared prefixes, steps in
// flight, drafts accepted and rejected, step times from a clock that jumps. Every invariant is
// checked after every call, every request ends exactly once with just the tokens that it would get
// alone, and the same seed gives the same plans. `test_simulation <first seed> <seeds>` runs
// others.
#include <deque>
#include <random>

#include "device.h"
#include "driver.h"
#include "spec.h"

using namespace ts;
using spec::Driver;

namespace {

// Calls, rows planned and tokens committed, over all seeds.
std::uint64_t events = 0;

// The number on the command line at `place`.
std::uint64_t argument(std::size_t place, std::uint64_t otherwise) {
  return place < spec::arguments.size() ? std::stoull(spec::arguments[place]) : otherwise;
}

class Workload {
 public:
  explicit Workload(std::uint64_t seed)
      : random_(seed), driver_(config(), chance(4) ? 3 : ~ContentHash{0}) {}

  // A digest of every plan.
  std::uint64_t run() {
    for (int i = 0; i < 150; ++i) {
      if (chance(3)) submit();
      if (chance(12)) abort();
      step();
    }
    for (int i = 0; step(); ++i) {
      if (i == 100000) throw std::logic_error("the workload does not end");
    }
    for (auto& [id, ask] : asks_) {
      EXPECT(driver_.ended(id));
      EXPECT(driver_.outcomes[id].tokens == alone(ask));
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
    config.overlap_depth = pick(0, 1);
    config.num_speculative_tokens = chance(2) ? pick(1, 5) : 0;
    config.min_tps_per_user = chance(3) ? pick(1, 200) : 0;
    config.max_num_batched_tokens =
        config.max_num_seqs * (1 + config.num_speculative_tokens) + pick(0, 16);
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
    const RequestId id = next_id_++;
    asks_[id] = {prompt, pick(1, 20), std::vector<Token>(static_cast<std::size_t>(pick(0, 1)))};
    for (Token& stop : asks_[id].stops) stop = pick(0, 7);
    ++events;
    driver_.submit({.id = id,
                    .prompt = prompt,
                    .max_tokens = asks_[id].max_tokens,
                    .eos_token_ids = {},
                    .stop_token_ids = asks_[id].stops,
                    .cache_salt = {},
                    .priority = pick(0, 1),
                    .params = {}});
  }

  struct Launched {
    std::uint64_t step;
    spec::Yield yield;
  };

  struct Ask {
    std::vector<Token> prompt;
    std::int32_t max_tokens = 0;
    std::vector<Token> stops;
  };

  // The output of a request that shares the device with nobody.
  std::vector<Token> alone(const Ask& ask) {
    const SchedulerConfig& config = driver_.scheduler.config();
    std::vector<Token> history = ask.prompt;
    std::vector<Token> output;
    while (static_cast<std::int32_t>(output.size()) < ask.max_tokens &&
           static_cast<std::int32_t>(history.size()) < config.max_model_len) {
      output.push_back(spec::next_token(history, config.vocab_size));
      history.push_back(output.back());
      if (std::ranges::find(ask.stops, output.back()) != ask.stops.end()) break;
    }
    return output;
  }

  void abort() {
    const RequestId id = static_cast<RequestId>(pick(0, static_cast<int>(next_id_)));
    const bool alive = asks_.contains(id) && !driver_.ended(id);
    EXPECT(driver_.abort(id) == alive);
    ++events;
    if (alive) asks_.erase(id);
  }

  // Plans a step or commits one; false if there is nothing left to do.
  bool step() {
    const auto depth = static_cast<std::size_t>(driver_.scheduler.config().overlap_depth);
    if (in_flight_.size() <= depth && plan()) {
      if (chance(10)) abort();
      if (depth > 0 && chance(2)) return true;  // the next may be planned before this is committed
    } else if (in_flight_.empty()) {
      return false;
    }
    commit();
    return true;
  }

  bool plan() {
    if (!driver_.plan()) return false;
    const Plan& plan = driver_.scheduler.plan_buffers();
    events += plan.row_slot.size() + 1;
    for (std::size_t i = 0; i < plan.admitted_slot.size(); ++i) {
      const Ask& ask = asks_.at(plan.admitted_request[i]);
      longest_[plan.admitted_slot[i]] =
          std::min(static_cast<std::int32_t>(ask.prompt.size()) + ask.max_tokens,
                   driver_.scheduler.config().max_model_len);
    }
    for (std::size_t i = 0; i < plan.row_slot.size(); ++i) {
      // The KV of a request's last token is never needed.
      EXPECT(plan.row_start[i] + plan.row_tokens[i] < longest_.at(plan.row_slot[i]));
    }
    mix(plan.row_slot), mix(plan.row_start), mix(plan.row_tokens);
    for (std::size_t i = 0; i < plan.page_patch.size(); ++i) {
      digest_ = digest_ * 31 + static_cast<std::uint64_t>(plan.page_patch[i].page);
    }
    in_flight_.push_back({plan.step, device_.execute(plan, [this](int drafts) {
                            return drafts == 0 ? 0 : pick(0, drafts);
                          })});
    return true;
  }

  void commit() {
    const Launched launched = in_flight_.front();
    in_flight_.pop_front();
    double seconds = 0.001 * pick(1, 20);
    if (chance(20)) seconds = chance(2) ? 0 : 1e4;  // unknown, or the clock jumped
    driver_.commit(launched.step, launched.yield.tokens, launched.yield.counts, seconds);
    events += launched.yield.tokens.size() + 1;
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
  spec::Device device_{driver_.scheduler.config()};
  std::map<RequestId, Ask> asks_;  // all but the aborted
  RequestId next_id_ = 0;
  std::map<SlotId, std::int32_t> longest_;  // prompt and output of whom a slot belongs to
  std::deque<Launched> in_flight_;
  std::uint64_t digest_ = 0;
};

}  // namespace

SPEC("any workload on any pool that holds its largest request ends, and repeats exactly") {
  const std::uint64_t first = argument(0, 1);
  const std::uint64_t seeds = argument(1, 200);
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
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
  std::printf("%llu events\n", static_cast<unsigned long long>(events));
}
