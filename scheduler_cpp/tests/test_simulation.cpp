// SPDX-License-Identifier: MIT
// Seeded random workloads on tiny pools: arrivals, aborts, retraction, shared prefixes, steps in
// flight, drafts accepted and rejected, step times from a clock that jumps, a host tier whose
// transfers end late, in any order or not well, sliding windows and recurrent states. Every
// invariant is checked after every call, every request ends exactly once with just the tokens that
// it would get alone, a router's view of the cache stays right, and the same seed gives the same
// plans.
//
//   test_simulation [<first seed> [<seeds> [<least events>]]]
//
// With a third number the run must be long enough to prove something: it has at least so many
// events, and all that is listed under Visits happened. A failure names its seed.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "device.h"
#include "driver.h"
#include "failing_input.h"
#include "router_view.h"
#include "spec.h"

using namespace ts;
using spec::Driver;

namespace {

constexpr std::uint64_t kRepeated = 8;  // each that many-th seed runs twice

// What a workload met, counted from outside.
struct Visits {
  std::uint64_t events = 0;           // calls, rows planned, tokens committed
  std::uint64_t plans_in_flight = 0;  // made while a step was in flight
  std::uint64_t waits_in_flight = 0;  // for the commit of a step, since there was nothing to plan
  std::uint64_t retractions = 0;
  std::uint64_t held_back = 0;        // in flight, with tokens to decode, and yet without a row
  std::uint64_t stops_in_flight = 0;  // with a row of the next step in flight
  std::uint64_t aborts_in_flight = 0;
  std::uint64_t drafts_accepted = 0;
  std::uint64_t drafts_rejected = 0;
  std::uint64_t prefix_hit_tokens = 0;
  std::uint64_t evictions = 0;
  std::uint64_t caches_cleared = 0;
  std::uint64_t read_generated = 0;       // tokens sampled behind others' generated tokens
  std::uint64_t chunks_of_generated = 0;  // tokens computed again after a retraction
  std::uint64_t columns_replaced = 0;     // by a page of the same content that was cached meanwhile
  std::uint64_t pages_stored = 0;         // to the host tier
  std::uint64_t pages_displaced = 0;      // the same, by loads
  std::uint64_t pages_loaded = 0;         // from it
  std::uint64_t transfers_failed = 0;
  std::uint64_t aborts_while_loading = 0;
  std::uint64_t prompts_sent = 0;         // to a peer
  std::uint64_t prompts_received = 0;     // from one
  std::uint64_t group_hit_tokens = 0;     // with further cache groups
  std::uint64_t held_prefill_tokens = 0;  // by the floor, and so the next
  std::uint64_t held_admissions = 0;
  std::uint64_t failures = 0;            // of requests whose next token could not be sampled
  std::uint64_t failures_in_flight = 0;  // with a row of the next step in flight
  std::uint64_t failures_of_drafts = 0;  // behind tokens of the same row that were kept
  std::uint64_t spoilt_found = 0;        // by later requests, in what nobody had sampled behind

  template <class Use>
  void each(Use use) const {
    use("events", events);
    use("plans made while a step was in flight", plans_in_flight);
    use("plans that waited for a step in flight", waits_in_flight);
    use("retractions", retractions);
    use("sequences in flight held back", held_back);
    use("stops with the next step in flight", stops_in_flight);
    use("aborts in flight", aborts_in_flight);
    use("drafts accepted", drafts_accepted);
    use("drafts rejected", drafts_rejected);
    use("prefix hit tokens", prefix_hit_tokens);
    use("evictions", evictions);
    use("caches cleared", caches_cleared);
    use("tokens sampled behind others' generated tokens", read_generated);
    use("rows of tokens generated before a retraction", chunks_of_generated);
    use("columns replaced", columns_replaced);
    use("pages stored to the host tier", pages_stored);
    use("pages that loads displaced", pages_displaced);
    use("pages loaded from it", pages_loaded);
    use("transfers that failed", transfers_failed);
    use("aborts while loading", aborts_while_loading);
    use("prompts sent to a peer", prompts_sent);
    use("prompts received from a peer", prompts_received);
    use("prefix hit tokens with further cache groups", group_hit_tokens);
    use("prefill tokens held back by the floor", held_prefill_tokens);
    use("admissions held back by the floor", held_admissions);
    use("requests that failed", failures);
    use("requests that failed with the next step in flight", failures_in_flight);
    use("requests that failed behind accepted drafts", failures_of_drafts);
    use("requests that found what was spoilt before", spoilt_found);
  }
};

// The number on the command line at `place`.
std::uint64_t argument(std::size_t place, std::uint64_t otherwise) {
  return place < spec::arguments.size() ? std::stoull(spec::arguments[place]) : otherwise;
}

class Workload {
 public:
  Workload(std::uint64_t seed, Visits& visits)
      : visits_(visits), random_(seed), driver_(config(), chance(4) ? 3 : ~ContentHash{0}) {}

  // A digest of every plan.
  std::uint64_t run() {
    if (fails_) device_.spoils = [this] { return chance(400); };
    for (int i = 0; i < 150; ++i) {
      if (chance(3)) submit();
      if (chance(12)) abort();
      if (chance(8)) drain_kv_events();
      if (chance(16)) clear_prefix_cache();
      if (chance(16)) announce_cache();
      step();
    }
    for (int i = 0; step(); ++i) {
      if (i == 100000) throw std::logic_error("the workload does not end");
    }
    for (auto& [id, ask] : asks_) {
      EXPECT(driver_.ended(id));
      prompts_.push_back(ask.prompt);
      const bool failed = driver_.outcomes[id].finish == FinishReason::kFailed;
      if (failed) EXPECT(begins_with(alone(ask), driver_.outcomes[id].tokens));
      if (!failed) EXPECT(driver_.outcomes[id].tokens == alone(ask));
      if (ask.prefill_only) EXPECT(failed ? device_.sent[id].empty() : got_prompt(id, ask));
    }
    if (fails_) expect_nothing_spoilt_is_found_twice();
    const Stats stats = driver_.scheduler.stats();
    EXPECT(stats.waiting == 0 && stats.running == 0 && stats.pages_used == 0);
    drain_kv_events();
    EXPECT(router_.blocks() ==
           static_cast<std::size_t>(stats.pages_cached + stats.host_pages_cached));
    EXPECT(driver_.scheduler.clear_prefix_cache());
    driver_.scheduler.check_invariants();
    EXPECT(driver_.scheduler.stats().pages_free == driver_.scheduler.config().num_pages);
    EXPECT(driver_.scheduler.stats().host_pages_cached == 0);
    visits_.read_generated += device_.read_generated;
    count_totals(stats);
    return digest_;
  }

 private:
  SchedulerConfig config() {
    SchedulerConfig config{.page_size = pick(1, 4),
                           .max_num_seqs = chance(8) ? pick(6, 24) : pick(1, 5),
                           .max_model_len = pick(8, 40),
                           .vocab_size = 8};
    config.num_pages = pages_per_sequence(config) + pick(0, 12);
    config.overlap_depth = pick(0, 1);
    config.num_speculative_tokens = chance(2) ? pick(1, 5) : 0;
    config.min_tps_per_user = chance(3) ? pick(1, 200) : 0;
    config.max_num_batched_tokens =
        config.max_num_seqs * (1 + config.num_speculative_tokens) + pick(0, 16);
    config.chunked_prefill_size = pick(1, 12);
    if (!chance(3)) config.absorb_from = pick(0, config.max_model_len);
    config.enable_prefix_caching = !chance(5);
    config.max_overtakes = pick(0, 8);
    if (chance(3)) {
      config.num_host_pages = pick(1, 24);
    } else if (chance(2)) {
      for (int groups = pick(1, 2); groups > 0; --groups) add_group(config);
    }
    return config;
  }

  void add_group(SchedulerConfig& config) {
    const bool recurrent = chance(2);
    if (recurrent) config.num_speculative_tokens = 0;
    CacheGroup group{recurrent ? CacheGroupKind::kRecurrent : CacheGroupKind::kSlidingWindow, 0,
                     recurrent ? 0 : pick(1, 12)};
    group.num_pages = group.least_pages(config.page_size) + pick(0, 12);
    config.cache_groups.push_back(group);
  }

  void submit() {
    const SchedulerConfig& config = driver_.scheduler.config();
    std::vector<Token> prompt;
    const std::int32_t length = pick(1, config.max_model_len - 1);
    const std::int32_t shared = pick(0, length);
    for (std::int32_t i = 0; i < length; ++i) prompt.push_back(i < shared ? i % 8 : pick(0, 7));
    const RequestId id = next_id_++;
    Ask& ask = asks_[id];
    ask.prompt = prompt;
    ask.max_tokens = pick(1, 20);
    ask.min_tokens = chance(4) ? pick(0, ask.max_tokens) : 0;
    if (chance(2)) ask.stops = {pick(0, 7)};
    Role role = Role::kAggregated;
    if (chance(6) && config.cache_groups.empty()) role = chance(2) ? Role::kPrefill : Role::kDecode;
    ask.prefill_only = role == Role::kPrefill;
    if (ask.prefill_only) ask.max_tokens = 1, ask.min_tokens = 0;
    ++visits_.events;
    driver_.submit({.id = id,
                    .prompt = prompt,
                    .max_tokens = ask.max_tokens,
                    .min_tokens = ask.min_tokens,
                    .eos_token_ids = {},
                    .stop_token_ids = ask.stops,
                    .cache_salt = {},
                    .priority = pick(0, 1),
                    .params = {},
                    .role = role});
  }

  struct LaunchedRow {
    SlotId slot;
    RequestId request;
    std::int32_t end;  // behind its last token
    std::int32_t samples;
  };

  struct Launched {
    std::uint64_t step;
    std::vector<LaunchedRow> rows;
    spec::Yield yield;

    [[nodiscard]] bool names(SlotId slot) const {
      return std::ranges::any_of(rows, [slot](const auto& row) { return row.slot == slot; });
    }
  };

  // Who has a slot, as far as the plans tell.
  struct Seated {
    RequestId request;
    std::int32_t longest;  // prompt and output
    std::int32_t columns;  // of its block table
  };

  struct Ask {
    std::vector<Token> prompt;
    std::int32_t max_tokens = 0;
    std::int32_t min_tokens = 0;
    std::vector<Token> stops;
    bool prefill_only = false;
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
      const bool may_stop = static_cast<std::int32_t>(output.size()) >= ask.min_tokens;
      if (may_stop && std::ranges::find(ask.stops, output.back()) != ask.stops.end()) break;
    }
    return output;
  }

  // Has the peer got the KV of the whole prompt?
  bool got_prompt(RequestId id, const Ask& ask) {
    return begins_with(device_.sent[id], ask.prompt);
  }

  static bool begins_with(const std::vector<Token>& whole, const std::vector<Token>& beginning) {
    return whole.size() >= beginning.size() &&
           std::equal(beginning.begin(), beginning.end(), whole.begin());
  }

  void abort() {
    const RequestId id = static_cast<RequestId>(pick(0, static_cast<int>(next_id_)));
    const bool alive = asks_.contains(id) && !driver_.ended(id);
    const std::int32_t loading = driver_.scheduler.stats().loading;
    EXPECT(driver_.abort(id) == alive);
    ++visits_.events;
    if (!alive) return;
    prompts_.push_back(asks_.at(id).prompt);
    asks_.erase(id);
    visits_.aborts_while_loading += loading != driver_.scheduler.stats().loading;
    visits_.aborts_in_flight += std::ranges::any_of(in_flight_, [id](const Launched& launched) {
      return std::ranges::any_of(launched.rows, [id](auto& row) { return row.request == id; });
    });
  }

  void clear_prefix_cache() {
    ++visits_.events;
    const bool cleared = driver_.scheduler.clear_prefix_cache();
    driver_.scheduler.check_invariants();
    visits_.caches_cleared += cleared;
    const Stats stats = driver_.scheduler.stats();
    EXPECT(cleared == (stats.pages_used == 0));
    EXPECT(!cleared || stats.pages_cached == 0);
  }

  void drain_kv_events() {
    ++visits_.events;
    const std::string payload = driver_.scheduler.drain_kv_events(1.5);
    if (!payload.empty()) router_.apply(payload);
  }

  // Who hears of the cache only now knows what a router knows that heard everything.
  void announce_cache() {
    drain_kv_events();
    driver_.scheduler.announce_cache();
    const std::string payload = driver_.scheduler.drain_kv_events(1.5);
    EXPECT(payload.empty() != driver_.scheduler.config().enable_prefix_caching);
    if (payload.empty()) return;
    spec::RouterView late;
    late.apply(payload);
    EXPECT(late.knows_the_same(router_));
    router_.apply(payload);
  }

  // Plans a step or commits one; false if there is nothing left to do.
  bool step() {
    const auto depth = static_cast<std::size_t>(driver_.scheduler.config().overlap_depth);
    if (device_.transfers() > 0 && chance(3)) end_transfer();
    if (in_flight_.size() <= depth && plan()) {
      if (chance(10)) abort();
      if (depth > 0 && chance(2)) return true;  // the next may be planned before this is committed
    } else if (in_flight_.empty()) {
      if (device_.transfers() == 0) return false;
      end_transfer();
      return true;
    }
    commit();
    return true;
  }

  void end_transfer() {
    const bool ok = !chance(5);
    const auto last = static_cast<std::int32_t>(device_.transfers()) - 1;
    driver_.complete_transfer(device_.end_transfer(static_cast<std::size_t>(pick(0, last)), ok),
                              ok);
    ++visits_.events;
    visits_.transfers_failed += ok ? 0 : 1;
  }

  bool plan() {
    const bool planned = driver_.plan();
    const Plan& plan = driver_.scheduler.plan_buffers();
    if (!in_flight_.empty()) count_held_back(plan, in_flight_.front());
    if (!planned) {
      visits_.waits_in_flight += in_flight_.empty() ? 0 : 1;
      return false;
    }
    visits_.plans_in_flight += in_flight_.empty() ? 0 : 1;
    visits_.events += plan.row_slot.size() + 1;
    for (std::size_t i = 0; i < plan.admitted_slot.size(); ++i) {
      const Ask& ask = asks_.at(plan.admitted_request[i]);
      const auto most = static_cast<std::int32_t>(ask.prompt.size()) + ask.max_tokens;
      seated_[plan.admitted_slot[i]] = {
          .request = plan.admitted_request[i],
          .longest = std::min(most, driver_.scheduler.config().max_model_len),
          .columns = 0};
    }
    for (std::size_t i = 0; i < plan.page_patch.size(); ++i) {
      const PagePatch& patch = plan.page_patch[i];
      std::int32_t& columns = seated_.at(patch.slot).columns;
      visits_.columns_replaced += patch.column < columns ? 1 : 0;
      columns = std::max(columns, patch.column + 1);
      digest_ = digest_ * 31 + static_cast<std::uint64_t>(patch.page);
    }
    for (std::size_t i = 0; i < plan.transfer_id.size(); ++i) {
      const auto pages =
          static_cast<std::uint64_t>(plan.transfer_offset[i + 1] - plan.transfer_offset[i]);
      switch (static_cast<TransferKind>(plan.transfer_kind[i])) {
        case TransferKind::kStore:
          visits_.pages_stored += pages;
          break;
        case TransferKind::kDisplace:
          visits_.pages_displaced += pages;
          break;
        case TransferKind::kLoad:
          visits_.pages_loaded += pages;
          break;
        case TransferKind::kSend:
          ++visits_.prompts_sent;
          break;
        case TransferKind::kReceive:
          ++visits_.prompts_received;
          break;
      }
    }
    mix(plan.transfer_device_page), mix(plan.transfer_host_page);
    for (const auto& patch : plan.group_page_patch) {
      for (std::size_t i = 0; i < patch.size(); ++i) {
        digest_ = digest_ * 31 + static_cast<std::uint64_t>(patch[i].page);
      }
    }
    mix(plan.row_slot), mix(plan.row_start), mix(plan.row_tokens);
    launch(plan);
    return true;
  }

  void launch(const Plan& plan) {
    Launched launched{.step = plan.step, .rows = {}, .yield = {}};
    for (std::size_t i = 0; i < plan.row_slot.size(); ++i) {
      const Seated& seated = seated_.at(plan.row_slot[i]);
      const std::int32_t end = plan.row_start[i] + plan.row_tokens[i];
      const auto prompt = static_cast<std::int32_t>(asks_.at(seated.request).prompt.size());
      visits_.chunks_of_generated += plan.row_start[i] >= prompt && plan.row_samples[i] == 0;
      EXPECT(end < seated.longest);  // the KV of a request's last token is never needed
      launched.rows.push_back({plan.row_slot[i], seated.request, end, plan.row_samples[i]});
    }
    launched.yield =
        device_.execute(plan, [this](int drafts) { return drafts == 0 ? 0 : pick(0, drafts); });
    if (fails_) spoil(launched.yield);
    in_flight_.push_back(std::move(launched));
  }

  // Of what it has computed, no token tells whether it is spoilt.
  void submit_and_abort() {
    device_.spoils = [this] { return chance(20); };
    submit();
    for (int steps = pick(1, 4); steps > 0 && step(); --steps) {
    }
    const RequestId id = next_id_ - 1;
    if (driver_.ended(id) || !asks_.contains(id)) return;
    EXPECT(driver_.abort(id));
    prompts_.push_back(asks_.at(id).prompt);
    asks_.erase(id);
  }

  // Whoever fails takes with it what made it fail.
  void expect_nothing_spoilt_is_found_twice() {
    fails_ = false;
    for (int i = 0; i < 10; ++i) submit_and_abort();
    while (step()) {
    }
    device_.spoils = [] { return false; };
    for (const std::vector<Token>& prompt : std::vector(prompts_)) {
      const Ask ask{.prompt = prompt, .max_tokens = 1, .stops = {}};
      int failures = 0;
      FinishReason finish = FinishReason::kNone;
      while (finish != FinishReason::kLength && failures < 2) {  // again if it is aborted
        const RequestId id = next_id_++;
        asks_[id] = ask;
        driver_.submit(id, prompt, ask.max_tokens);
        while (step()) {
        }
        finish = driver_.outcomes[id].finish;
        failures += finish == FinishReason::kFailed ? 1 : 0;
        if (finish == FinishReason::kLength) EXPECT(driver_.outcomes[id].tokens == alone(ask));
      }
      EXPECT(failures < 2);
      visits_.spoilt_found += static_cast<std::uint64_t>(failures);
    }
  }

  // Here and there a row's next token cannot be sampled.
  void spoil(spec::Yield& yield) {
    std::size_t begin = 0;
    for (const std::int32_t count : yield.counts) {
      if (chance(50)) yield.tokens[begin + static_cast<std::size_t>(pick(0, count - 1))] = kNoToken;
      begin += static_cast<std::size_t>(count);
    }
  }

  void commit() {
    const Launched launched = std::move(in_flight_.front());
    in_flight_.pop_front();
    double seconds = 0.001 * pick(1, 20);
    if (chance(20)) seconds = chance(2) ? 0 : 1e4;  // unknown, or the clock jumped
    driver_.commit(launched.step, launched.yield.tokens, launched.yield.counts, seconds);
    visits_.events += launched.yield.tokens.size() + 1;
    count_committed(launched);
  }

  void count_held_back(const Plan& plan, const Launched& in_flight) {
    for (const LaunchedRow& row : in_flight.rows) {
      const bool alive = asks_.contains(row.request) && !driver_.ended(row.request);
      if (!alive || row.samples == 0 || row.end + 1 >= seated_.at(row.slot).longest) continue;
      const auto* const end = plan.row_slot.data() + plan.row_slot.size();
      visits_.held_back += std::find(plan.row_slot.data(), end, row.slot) == end;
    }
  }

  void count_committed(const Launched& launched) {
    std::vector<SlotId> sampling;
    for (const LaunchedRow& row : launched.rows) {
      if (row.samples == 0) continue;
      const std::int32_t count = launched.yield.counts[sampling.size()];
      visits_.drafts_accepted += static_cast<std::uint64_t>(count - 1);
      visits_.drafts_rejected += static_cast<std::uint64_t>(row.samples - count);
      sampling.push_back(row.slot);
    }
    const Output& output = driver_.scheduler.output_buffers();
    for (std::size_t i = 0; i < output.request.size(); ++i) {
      if (output.finish[i] == static_cast<std::uint8_t>(FinishReason::kNone)) continue;
      const SlotId slot = sampling[static_cast<std::size_t>(output.row[i])];
      const bool in_flight = !in_flight_.empty() && in_flight_.front().names(slot);
      if (output.finish[i] != static_cast<std::uint8_t>(FinishReason::kFailed)) {
        visits_.stops_in_flight += in_flight;
        continue;
      }
      ++visits_.failures;
      visits_.failures_in_flight += in_flight;
      visits_.failures_of_drafts += i > 0 && output.row[i - 1] == output.row[i];
    }
  }

  void count_totals(const Stats& stats) {
    const FloorReport floor = driver_.scheduler.floor();
    visits_.retractions += static_cast<std::uint64_t>(stats.retractions);
    visits_.prefix_hit_tokens += static_cast<std::uint64_t>(stats.prefix_hit_tokens);
    if (!driver_.scheduler.config().cache_groups.empty()) {
      visits_.group_hit_tokens += static_cast<std::uint64_t>(stats.prefix_hit_tokens);
    }
    visits_.evictions += router_.removed();
    visits_.held_prefill_tokens += static_cast<std::uint64_t>(floor.held_prefill_tokens);
    visits_.held_admissions += static_cast<std::uint64_t>(floor.held_admissions);
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

  Visits& visits_;
  std::mt19937_64 random_;
  Driver driver_;
  spec::Device device_{driver_.scheduler.config()};
  std::map<RequestId, Ask> asks_;  // all but the aborted
  RequestId next_id_ = 0;
  std::map<SlotId, Seated> seated_;
  spec::RouterView router_;
  std::deque<Launched> in_flight_;
  std::uint64_t digest_ = 0;
  bool fails_ = chance(4);  // some requests of this workload do
  std::vector<std::vector<Token>> prompts_;
};

}  // namespace

SPEC("any workload on any pool that holds its largest request ends, and repeats exactly") {
  const std::uint64_t first = argument(0, 1);
  const std::uint64_t seeds = argument(1, 200);
  Visits visits;
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    const std::string name = "seed " + std::to_string(seed);
    spec::begin_input(name);
    const int before = spec::failures;
    std::string error;
    try {
      const std::uint64_t digest = Workload(seed, visits).run();
      Visits again;  // not events of their own
      if (seed % kRepeated == 0) EXPECT(digest == Workload(seed, again).run());
    } catch (const std::exception& violated) {
      error = violated.what();
    }
    if (spec::failures > before || !error.empty()) {
      spec::fail(__FILE__, __LINE__, "failed on " + name + " " + error);
      return;
    }
  }
  visits.each([](const char* what, std::uint64_t count) {
    std::printf("%12llu %s\n", static_cast<unsigned long long>(count), what);
  });
  if (const std::uint64_t least_events = argument(2, 0); least_events > 0) {
    EXPECT(visits.events >= least_events);
    visits.each([](const char* what, std::uint64_t count) {
      if (count == 0) spec::fail(__FILE__, __LINE__, std::string("no ") + what);
    });
  }
}
