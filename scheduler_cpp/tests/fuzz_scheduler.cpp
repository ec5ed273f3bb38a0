// SPDX-License-Identifier: MIT
// Any sequence of calls is safe. The bytes of an input choose a small scheduler, then calls with
// good and bad values. Demanded of every call: it is refused exactly if it must be, the invariants
// hold after it, and no call that was refused leaves a trace. For the last, a twin gets only the
// calls that must succeed, and the two may never differ in what they plan, output or count.
//
// Driven by libFuzzer, or by fuzz_driver.cpp where there is none.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <vector>

#include "router_view.h"
#include "ts/scheduler.h"

namespace {

using namespace ts;

constexpr const char* kNoText = "\xff";  // a salt whose pages no event can announce
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNotANumber = std::numeric_limits<double>::quiet_NaN();

void demand(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

// The input as a row of choices; when it is used up, each is the first.
class Choices {
 public:
  Choices(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  [[nodiscard]] bool used_up() const { return at_ >= size_; }

  [[nodiscard]] std::int32_t pick(std::int32_t low, std::int32_t high) {
    const std::int32_t byte = used_up() ? 0 : data_[at_++];
    return low + byte % (high - low + 1);
  }
  [[nodiscard]] bool once_in(std::int32_t times) { return pick(1, times) == times; }
  template <class T, std::size_t N>
  [[nodiscard]] T of(const std::array<T, N>& values) {
    return values[static_cast<std::size_t>(pick(0, static_cast<std::int32_t>(N) - 1))];
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  std::size_t at_ = 0;
};

void add_group(SchedulerConfig& config, Choices& choices) {
  CacheGroup group{
      .kind = choices.of(std::array{CacheGroupKind::kSlidingWindow, CacheGroupKind::kRecurrent})};
  if (group.kind == CacheGroupKind::kRecurrent) {
    config.num_speculative_tokens = 0;
  } else {
    group.window = choices.pick(1, 20);
  }
  group.num_pages = group.least_pages(config.page_size) + choices.pick(0, 12);
  config.cache_groups.push_back(group);
}

SchedulerConfig small_config(Choices& choices) {
  SchedulerConfig config{.page_size = choices.pick(1, 9),
                         .num_pages = choices.pick(1, 24),
                         .max_num_seqs = choices.pick(1, 12),
                         .max_model_len = choices.pick(2, 40),
                         .max_num_batched_tokens = choices.pick(0, 16),
                         .chunked_prefill_size = choices.pick(1, 12),
                         .vocab_size = choices.pick(1, 8),
                         .enable_prefix_caching = !choices.once_in(6),
                         .enable_kv_events = !choices.once_in(6),
                         .params_size = choices.pick(0, 2),
                         .dp_rank = choices.pick(0, 1),
                         .max_overtakes = choices.pick(0, 3),
                         .overlap_depth = choices.pick(0, 1),
                         .num_speculative_tokens = choices.pick(0, 3),
                         .min_tps_per_user = choices.once_in(3) ? choices.pick(1, 200) : 0.0,
                         .peer_timeout = choices.of(std::array{0.0, 0.5})};
  if (choices.once_in(3)) {
    config.num_host_pages = choices.pick(1, 24);
  } else if (choices.once_in(2)) {
    for (std::int32_t groups = choices.pick(1, 2); groups > 0; --groups) add_group(config, choices);
  }
  if (!choices.once_in(3)) config.absorb_from = choices.pick(0, config.max_model_len);
  config.max_num_batched_tokens += config.max_num_seqs * (1 + config.num_speculative_tokens);
  return config;
}

void spoil_groups(SchedulerConfig& config, Choices& choices) {
  if (config.cache_groups.empty()) add_group(config, choices);
  CacheGroup& group = config.cache_groups.back();
  const bool recurrent = group.kind == CacheGroupKind::kRecurrent;
  switch (choices.pick(0, 4)) {
    case 0:
      config.num_host_pages = choices.pick(1, 24);
      break;
    case 1:
      group.window = recurrent ? choices.of(std::array{INT32_MIN, -1, 1, INT32_MAX})
                               : choices.of(std::array{INT32_MIN, -1, 0, INT32_MAX});
      break;
    case 2:
      group.num_pages = choices.of(
          std::array{group.least_pages(config.page_size) - 1, 0, -1, INT32_MIN, INT32_MAX});
      break;
    case 3:
      config.cache_groups.resize(static_cast<std::size_t>(choices.pick(8, 9)), group);
      break;
    default:
      group = {.kind = CacheGroupKind::kRecurrent, .num_pages = 12};
      config.num_speculative_tokens = choices.pick(1, 3);
      config.max_num_batched_tokens *= 4;
  }
}

// True if the configuration must be refused now; else it may be.
bool spoil(SchedulerConfig& config, Choices& choices) {
  if (choices.once_in(8)) {
    config.peer_timeout = choices.of(std::array{-1.0, kNotANumber, kInfinity, -kInfinity, 1e7});
    return true;
  }
  if (choices.once_in(8)) {
    config.min_tps_per_user = choices.of(std::array{-1.0, kNotANumber, kInfinity, -kInfinity, 1e7});
    return true;
  }
  if (choices.once_in(2)) {
    spoil_groups(config, choices);
    return true;
  }
  const std::array<std::int32_t*, 14> sizes{&config.page_size,
                                            &config.num_pages,
                                            &config.max_num_seqs,
                                            &config.max_model_len,
                                            &config.max_num_batched_tokens,
                                            &config.chunked_prefill_size,
                                            &config.vocab_size,
                                            &config.absorb_from,
                                            &config.params_size,
                                            &config.dp_rank,
                                            &config.max_overtakes,
                                            &config.overlap_depth,
                                            &config.num_speculative_tokens,
                                            &config.num_host_pages};
  *choices.of(sizes) = choices.of(std::array<std::int32_t, 4>{INT32_MIN, -1, 0, INT32_MAX});
  return false;
}

// The bytes of a value's parts. A field that is added to one of the types below breaks its
// structured binding, so none is forgotten.
template <class T>
void append_bytes(std::string& bytes, const T& value) {
  static_assert(std::is_arithmetic_v<T>);
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}
template <class T>
void append_bytes(std::string& bytes, const Column<T>& column) {
  static_assert(std::has_unique_object_representations_v<T>);
  append_bytes(bytes, column.size());
  bytes.append(reinterpret_cast<const char*>(column.data()), column.size() * sizeof(T));
}
template <class T>
void append_bytes(std::string& bytes, const std::vector<Column<T>>& columns) {
  for (const Column<T>& column : columns) append_bytes(bytes, column);
}
template <class... Parts>
std::string bytes_of(const Parts&... parts) {
  std::string bytes;
  (append_bytes(bytes, parts), ...);
  return bytes;
}

std::string image(const Plan& plan) {
  const auto& [step, num_absorbed_rows, num_tokens, row_slot, row_start, row_tokens, row_samples,
               admitted_slot, admitted_request, admitted_offset, admitted_prompt_tokens,
               admitted_tokens, admitted_params, page_patch, group_page_patch, transfer_id,
               transfer_request, transfer_kind, transfer_offset, transfer_device_page,
               transfer_host_page] = plan;
  return bytes_of(step, num_absorbed_rows, num_tokens, row_slot, row_start, row_tokens, row_samples,
                  admitted_slot, admitted_request, admitted_offset, admitted_prompt_tokens,
                  admitted_tokens, admitted_params, page_patch, group_page_patch, transfer_id,
                  transfer_request, transfer_kind, transfer_offset, transfer_device_page,
                  transfer_host_page);
}

std::string image(const Output& output) {
  const auto& [request, token, row, finish, cached_tokens] = output;
  return bytes_of(request, token, row, finish, cached_tokens);
}

std::string image(const Stats& stats) {
  const auto& [waiting, running, loading, pages_used, pages_cached, pages_free, host_pages_cached,
               prefix_query_tokens, prefix_hit_tokens, retractions, steps] = stats;
  return bytes_of(waiting, running, loading, pages_used, pages_cached, pages_free,
                  host_pages_cached, prefix_query_tokens, prefix_hit_tokens, retractions, steps);
}

std::string image(const FloorReport& report) {
  const auto& [users, attained_p1, attained_p50, held_prefill_tokens, held_admissions,
               predicted_step_seconds] = report;
  return bytes_of(users, attained_p1, attained_p50, held_prefill_tokens, held_admissions,
                  predicted_step_seconds);
}

class Session {
 public:
  Session(const SchedulerConfig& config, ContentHash hash_mask, Choices& choices)
      : choices_(choices), scheduler_(config, hash_mask), twin_(config, hash_mask) {}

  void run() {
    for (int calls = 0; calls < 500 && !choices_.used_up(); ++calls) call();
  }

  // Everything that is alive ends, and leaves nothing behind.
  void finish() {
    for (int steps = 0; !live_.empty() || !flights_.empty() || !transfers_.empty(); ++steps) {
      demand(steps < 10000, "what is alive ends");
      const bool planned = room_for_a_step() && plan();
      if (!flights_.empty()) {
        commit_good();
      } else if (!planned) {
        end_transfer();
      }
    }
    const Stats stats = scheduler_.stats();
    demand(stats.waiting == 0 && stats.running == 0, "nobody is left");
    demand(stats.pages_used == 0, "with nothing running, all pages are free or cached");
    drain_kv_events();
    const auto cached = static_cast<std::size_t>(stats.pages_cached + stats.host_pages_cached);
    demand(router_.blocks() == cached || hidden_pages_ || !config().enable_kv_events,
           "a router knows what is cached");
    demand(clear_prefix_cache(), "an idle cache is cleared");
    drain_kv_events();
    demand(router_.blocks() == 0, "a router knows that all is cleared");
  }

 private:
  // A request that is alive, as its submitter knows it.
  struct Ask {
    std::uint64_t serial = 0;  // an id may be used again
    std::int64_t prompt_length = 0;
    std::int64_t length = 0;  // prompt and output so far
    std::int64_t min_length = 0;
    std::int64_t max_length = 0;
    std::vector<Token> stops;
    std::int32_t cached_tokens = -1;  // until the first output
  };

  struct Seated {
    RequestId request;
    std::uint64_t serial;
  };

  struct SamplingRow {
    Seated seated;
    std::int32_t samples;  // at most
  };

  struct Flight {
    std::uint64_t step = 0;
    std::size_t buffers = 0;
    std::string image;  // of its plan
    std::vector<SamplingRow> rows;
  };

  // Between the device and the host, and under way.
  struct Transfer {
    std::uint64_t id = 0;
    bool load = false;
    std::set<PageId> device_pages, host_pages;
  };

  // What a step yielded.
  struct Sampled {
    std::vector<Token> tokens;
    std::vector<std::int32_t> counts;  // empty: all 1
    double seconds = 0;
  };

  void call() {
    switch (choices_.pick(0, 15)) {
      case 0:
      case 1:
      case 2:
        submit();
        break;
      case 3:
        abort();
        break;
      case 4:
        plan();
        break;
      case 5:
        commit();
        break;
      case 6:
        clear_prefix_cache();
        break;
      case 7:
        drain_kv_events();
        if (choices_.once_in(3)) announce_cache();
        break;
      case 8:
        commit_bad();
        break;
      case 9:
        end_transfer();
        break;
      case 10:
        end_transfer_bad();
        break;
      case 11:
        ask_for_overdue();
        break;
      default:
        if (!transfers_.empty() && choices_.once_in(3)) end_transfer();
        if (room_for_a_step()) plan();
        if (!room_for_a_step() || choices_.once_in(2)) commit();
    }
  }

  // A call that must succeed, on both schedulers.
  template <class Call>
  std::invoke_result_t<Call, Scheduler&> both(Call call) {
    auto result = call(scheduler_);
    demand(result == call(twin_), "the twins answer the same");
    check();
    return result;
  }

  // A call that must be refused with exactly this type of error.
  template <class Error, class Call>
  void refused(Call call) {
    bool threw = false;
    try {
      call(scheduler_);
    } catch (const std::exception& error) {
      demand(typeid(error) == typeid(Error), error.what());
      threw = true;
    }
    demand(threw, "a bad call is refused");
    check();
  }

  void check() {
    scheduler_.check_invariants();
    const auto same = [this](auto part) { return image(part(scheduler_)) == image(part(twin_)); };
    demand(same([](auto& s) { return s.stats(); }), "the twins count the same");
    demand(same([](auto& s) { return s.floor(); }), "the twins measure the same");
    demand(same([](auto& s) -> auto& { return s.plan_buffers(); }), "the twins plan the same");
    demand(same([](auto& s) -> auto& { return s.output_buffers(); }), "the twins output the same");
    for (const Flight& flight : flights_) {
      demand(image(scheduler_.plan_buffers(flight.buffers)) == flight.image,
             "a plan stays as it is until its step is committed");
    }
    check_stats(scheduler_.stats());
    check_floor(scheduler_.floor());
  }

  void check_stats(const Stats& stats) {
    demand(stats.waiting >= 0 && stats.running >= 0 &&
               static_cast<std::size_t>(stats.waiting + stats.running) == live_.size(),
           "whatever is alive waits or runs");
    demand(stats.pages_used + stats.pages_cached + stats.pages_free == config().num_pages &&
               std::min({stats.pages_used, stats.pages_cached, stats.pages_free}) >= 0,
           "a page is used, cached or free");
    demand(stats.loading >= 0 && stats.loading <= std::min(stats.running, loads_under_way()),
           "who is loading runs, and has a transfer under way");
    const bool idle = stats.running == 0 && flights_.empty() && loads_under_way() == 0;
    demand(!idle || stats.pages_used == 0, "with nothing under way, no page is used");
    std::size_t stored = 0;
    for (const Transfer& transfer : transfers_) {
      stored += transfer.load ? 0 : transfer.host_pages.size();
    }
    demand(stats.host_pages_cached >= 0 &&
               static_cast<std::size_t>(stats.host_pages_cached) + stored <=
                   static_cast<std::size_t>(config().num_host_pages),
           "the host tier holds what it has room for");
    demand(stats.prefix_hit_tokens >= 0 && stats.prefix_hit_tokens <= stats.prefix_query_tokens,
           "only what was looked up was found");
    demand(stats.steps == commits_, "every step is counted");
    demand(stats.retractions >= retractions_, "retractions count upwards");
    retractions_ = stats.retractions;
  }

  void check_floor(const FloorReport& report) {
    demand(report.users >= 0 && report.held_prefill_tokens >= 0 && report.held_admissions >= 0,
           "the floor counts upwards");
    demand(config().min_tps_per_user > 0 ||
               (report.held_prefill_tokens == 0 && report.held_admissions == 0),
           "without a floor nothing is held back for it");
    demand(report.attained_p1 >= 0 && report.attained_p50 >= report.attained_p1 &&
               std::isfinite(report.attained_p50),
           "users attained a rate");
    demand(report.predicted_step_seconds >= 0 && std::isfinite(report.predicted_step_seconds),
           "a step is predicted to take a time");
  }

  void submit() {
    std::vector<Token> prompt(
        static_cast<std::size_t>(choices_.pick(1, config().max_model_len - 1)));
    const std::int32_t shared = choices_.pick(0, static_cast<std::int32_t>(prompt.size()));
    for (std::int32_t i = 0; auto& token : prompt) {
      token = i < shared ? i % config().vocab_size : good_token();
      ++i;
    }
    const std::int32_t ends = choices_.pick(0, 1);
    const std::int32_t others = choices_.pick(0, 2);
    std::vector<Token> eos = good_tokens(ends);
    std::vector<Token> stops = good_tokens(others);
    std::vector<std::byte> params;
    if (choices_.once_in(2)) params.resize(static_cast<std::size_t>(config().params_size));
    Submission ask{
        .id = static_cast<RequestId>(choices_.pick(0, 15)),
        .prompt = {},
        .max_tokens = choices_.once_in(8) ? INT64_MAX : choices_.pick(1, 20),
        .eos_token_ids = {},
        .stop_token_ids = {},
        .ignore_eos = choices_.once_in(4),
        .cache_salt = choices_.of(std::array<const char*, 4>{"", "a", "\xc3\xa9", kNoText}),
        .priority = choices_.pick(-1, 1),
        .params = {}};
    ask.min_tokens = choices_.once_in(8) ? ask.max_tokens : choices_.pick(0, 1);
    const bool spoilt = choices_.once_in(6);
    if (spoilt) {
      switch (choices_.pick(0, 8)) {
        case 0:
          prompt.clear();
          break;
        case 1:
          prompt.resize(static_cast<std::size_t>(config().max_model_len + choices_.pick(0, 4)));
          break;
        case 2:
          prompt[static_cast<std::size_t>(choices_.pick(0, 255)) % prompt.size()] = bad_token();
          break;
        case 3:
          ask.max_tokens = choices_.of(std::array<std::int64_t, 3>{0, -1, INT64_MIN});
          break;
        case 4:
          ask.min_tokens = ask.max_tokens == INT64_MAX ? INT64_MIN : ask.max_tokens + 1;
          break;
        case 5:
          eos.push_back(bad_token());
          break;
        case 6:
          stops.push_back(bad_token());
          break;
        case 7:
          ask.priority = INT64_MIN;
          break;
        default:
          params.resize(static_cast<std::size_t>(config().params_size + choices_.pick(1, 2)));
      }
    }
    ask.prompt = prompt;
    ask.eos_token_ids = eos;
    ask.stop_token_ids = stops;
    ask.params = params;
    const auto submitting = [&ask](Scheduler& s) { return s.submit(ask), true; };
    const auto length = static_cast<std::int64_t>(prompt.size());
    const std::int64_t room = config().max_model_len - length;
    const std::int64_t max_length = length + std::min<std::int64_t>(ask.max_tokens, room);
    const bool fits = pages_for(max_length - 1, config().page_size) <= config().num_pages;
    if (spoilt || !fits || live_.contains(ask.id)) {
      refused<std::invalid_argument>(submitting);
      return;
    }
    hidden_pages_ |= ask.cache_salt == kNoText;
    std::vector<Token> enders = stops;
    if (!ask.ignore_eos) enders.insert(enders.end(), eos.begin(), eos.end());
    live_[ask.id] = {.serial = ++serials_,
                     .prompt_length = length,
                     .length = length,
                     .min_length = length + std::min<std::int64_t>(ask.min_tokens, INT32_MAX),
                     .max_length = max_length,
                     .stops = enders};
    both(submitting);
  }

  void abort() {
    const RequestId id =
        choices_.once_in(8) ? ~RequestId{0} : static_cast<RequestId>(choices_.pick(0, 15));
    const bool alive = live_.erase(id) == 1;
    demand(both([id](Scheduler& s) { return s.abort(id); }) == alive,
           "just what is alive can be aborted");
  }

  void drain_kv_events() {
    const std::string payload = both([](Scheduler& s) { return s.drain_kv_events(1.5); });
    if (!payload.empty()) router_.apply(payload);
  }

  // Who hears of the cache only now knows what a router knows that heard everything.
  void announce_cache() {
    both([](Scheduler& s) { return s.announce_cache(), true; });
    const std::string payload = both([](Scheduler& s) { return s.drain_kv_events(1.5); });
    demand(payload.empty() != (config().enable_kv_events && config().enable_prefix_caching),
           "a cache is announced exactly if events are on");
    if (payload.empty()) return;
    spec::RouterView late;
    late.apply(payload);
    demand(late.knows_the_same(router_), "an announcement says what all events said");
    router_.apply(payload);
  }

  bool clear_prefix_cache() {
    const Stats before = scheduler_.stats();
    const bool cleared = both([](Scheduler& s) { return s.clear_prefix_cache(); });
    demand(cleared == (before.pages_used == 0),
           "the cache is cleared exactly if nobody holds pages");
    const Stats after = scheduler_.stats();
    demand(!cleared || (after.pages_free == config().num_pages && after.host_pages_cached == 0),
           "what is cleared is free");
    return cleared;
  }

  bool plan() {
    if (!room_for_a_step()) {
      refused<std::runtime_error>([](Scheduler& s) { return s.plan(); });
      return false;
    }
    const bool planned = scheduler_.plan();
    demand(planned == twin_.plan(), "the twins answer the same");
    if (!planned) {
      check();
      demand(live_.empty() || !flights_.empty() || loads_under_way() > 0,
             "whatever is alive is served");
      return false;
    }
    const Plan& plan = scheduler_.plan_buffers();
    for (std::size_t i = 0; i < plan.admitted_slot.size(); ++i) {
      const RequestId id = plan.admitted_request[i];
      demand(live_.contains(id), "only what is alive is admitted");
      seated_[plan.admitted_slot[i]] = {id, live_.at(id).serial};
    }
    Flight flight{.step = plan.step,
                  .buffers = scheduler_.current_buffers(),
                  .image = image(plan),
                  .rows = {}};
    demand(plan.row_slot.size() + plan.admitted_slot.size() + plan.transfer_id.size() > 0,
           "a plan is not empty");
    check_patches(plan.page_patch, config().num_pages);
    for (std::size_t i = 0; i < config().cache_groups.size(); ++i) {
      check_patches(plan.group_page_patch[i], config().cache_groups[i].num_pages);
    }
    begin_transfers(plan);
    std::int32_t tokens = 0;
    std::set<SlotId> slots;
    for (std::size_t i = 0; i < plan.row_slot.size(); ++i) {
      check_row(plan, i);
      demand(slots.insert(plan.row_slot[i]).second, "a sequence has one row");
      tokens += plan.row_tokens[i];
      if (plan.row_samples[i] > 0) {
        flight.rows.push_back({seated_.at(plan.row_slot[i]), plan.row_samples[i]});
      }
    }
    demand(plan.num_tokens == tokens, "a step's tokens are those of its rows");
    demand(tokens <= config().max_num_batched_tokens, "a step keeps its budget");
    flights_.push_back(std::move(flight));
    check();
    return true;
  }

  void check_patches(const Column<PagePatch>& patches, std::int32_t num_pages) const {
    for (std::size_t i = 0; i < patches.size(); ++i) {
      demand(seated_.contains(patches[i].slot) && patches[i].column >= 0 &&
                 patches[i].column < pages_per_sequence(config()) && patches[i].page >= 0 &&
                 patches[i].page < num_pages,
             "a patch names a slot, a column and a page that there are");
    }
  }

  // Every transfer is named once, stores first, and nothing else uses what one writes. What is
  // displaced is so by the plan's loads, and they displace nothing else.
  void begin_transfers(const Plan& plan) {
    std::size_t loads = 0;
    std::set<PageId> stored, displaced;
    demand(plan.transfer_offset[0] == 0, "transfers begin with the first page");
    for (std::size_t i = 0; i < plan.transfer_id.size(); ++i) {
      Transfer transfer{.id = plan.transfer_id[i],
                        .load = plan.transfer_kind[i] == 1,
                        .device_pages = {},
                        .host_pages = {}};
      demand(named_.insert(transfer.id).second, "a transfer is named once");
      const auto kind = static_cast<TransferKind>(plan.transfer_kind[i]);
      demand(transfer.load || kind == TransferKind::kStore || kind == TransferKind::kDisplace,
             "no transfer is with a peer");
      demand(transfer.load || loads == 0, "stores come first");
      loads += transfer.load ? 1 : 0;
      demand(plan.transfer_offset[i] < plan.transfer_offset[i + 1], "a transfer has pages");
      const auto end = static_cast<std::size_t>(plan.transfer_offset[i + 1]);
      for (auto at = static_cast<std::size_t>(plan.transfer_offset[i]); at < end; ++at) {
        const PageId device = plan.transfer_device_page[at];
        const PageId host = plan.transfer_host_page[at];
        demand(device >= 0 && device < config().num_pages, "a device page is in range");
        demand(host >= 0 && host < config().num_host_pages, "a host page is in range");
        for (const Transfer& other : transfers_) {
          demand(!other.load || !other.device_pages.contains(device),
                 "a device page that a load writes is left alone");
          demand((transfer.load && other.load) || !other.host_pages.contains(host),
                 "a host page that a transfer uses is left alone");
        }
        demand(
            transfer.device_pages.insert(device).second && transfer.host_pages.insert(host).second,
            "a transfer names a page once");
        if (kind == TransferKind::kStore) stored.insert(device);
        if (kind == TransferKind::kDisplace) displaced.insert(device);
        if (transfer.load) {
          demand(!stored.contains(device), "no row waits for what a load displaces");
          displaced.erase(device);
        }
      }
      transfers_.push_back(std::move(transfer));
    }
    demand(displaced.empty(), "only loads displace");
    demand(loads <= plan.admitted_slot.size(), "who is admitted loads");
  }

  void end_transfer() {
    if (transfers_.empty()) return end_transfer_bad();
    const auto which = static_cast<std::size_t>(choices_.pick(0, 255)) % transfers_.size();
    const std::uint64_t id = transfers_[which].id;
    const bool ok = !choices_.once_in(4);
    transfers_.erase(transfers_.begin() + static_cast<std::ptrdiff_t>(which));
    both([id, ok](Scheduler& s) { return s.complete_transfer(id, ok), true; });
  }

  void end_transfer_bad() {
    std::uint64_t id = choices_.of(std::array<std::uint64_t, 3>{0, 1ULL << 63, ~std::uint64_t{0}});
    if (const bool again = choices_.once_in(2); again && !named_.empty()) {
      id = static_cast<std::uint64_t>(choices_.pick(1, 255)) % (*named_.rbegin() + 2);
    }
    if (std::ranges::find(transfers_, id, &Transfer::id) != transfers_.end()) return;
    refused<std::invalid_argument>([id](Scheduler& s) { s.complete_transfer(id, true); });
  }

  // Between the device and the host nothing is ever overdue.
  void ask_for_overdue() {
    const double now = choices_.of(std::array{0.0, 1.0, 1e9, kNotANumber, kInfinity, -1.0});
    const auto asking = [now](Scheduler& s) { return s.overdue_transfers(now); };
    if (!std::isfinite(now) || now < now_) return refused<std::invalid_argument>(asking);
    now_ = now;
    demand(both(asking).empty(), "only what a peer takes part in is overdue");
  }

  [[nodiscard]] std::int32_t loads_under_way() const {
    return static_cast<std::int32_t>(std::ranges::count(transfers_, true, &Transfer::load));
  }

  void check_row(const Plan& plan, std::size_t i) {
    const std::int32_t tokens = plan.row_tokens[i];
    const std::int32_t samples = plan.row_samples[i];
    const std::int32_t with_drafts = 1 + config().num_speculative_tokens;
    demand(tokens >= 1 && samples <= std::min(tokens, with_drafts),
           "a row samples what it computes");
    demand(samples <= 1 || samples == tokens, "just decode rows carry drafts");
    const Ask* ask = alive(seated_.at(plan.row_slot[i]));
    demand(ask != nullptr, "only what is alive has a row");
    const std::int64_t expanded = std::min<std::int64_t>(ask->prompt_length, config().absorb_from);
    const bool absorbed = static_cast<std::int32_t>(i) < plan.num_absorbed_rows;
    demand(absorbed == (plan.row_start[i] >= expanded), "absorbed rows come first");
    demand(absorbed || plan.row_start[i] + tokens <= expanded, "a row has one form");
    demand(plan.row_start[i] >= 0 && plan.row_start[i] + tokens < ask->max_length,
           "the KV of a request's last token is never needed");
  }

  void commit() { choices_.once_in(8) ? commit_bad() : commit_good(); }

  void commit_good() {
    if (flights_.empty()) return commit_bad();
    const Flight flight = std::move(flights_.front());
    flights_.pop_front();
    const Sampled sampled = good_sampled(flight);
    for (Scheduler* s : {&scheduler_, &twin_}) {
      s->commit(flight.step, sampled.tokens, sampled.counts, sampled.seconds);
    }
    ++commits_;
    check_output(flight, sampled);
    check();
  }

  [[nodiscard]] Sampled good_sampled(const Flight& flight) {
    Sampled sampled;
    sampled.seconds = choices_.of(std::array{0.0, 0.001, 0.01, 0.5, 1e4, 1e-300, 1e6});
    if (choices_.once_in(2)) {
      for (const SamplingRow& row : flight.rows) {
        sampled.counts.push_back(choices_.pick(1, row.samples));
      }
    }
    sampled.tokens.resize(std::accumulate(sampled.counts.begin(), sampled.counts.end(),
                                          sampled.counts.empty() ? flight.rows.size() : 0));
    for (Token& token : sampled.tokens) token = choices_.once_in(64) ? kNoToken : good_token();
    return sampled;
  }

  void commit_bad() {
    if (flights_.empty()) {
      const auto step = static_cast<std::uint64_t>(choices_.pick(0, 9));
      refused<std::runtime_error>([step](Scheduler& s) { s.commit(step, {}); });
      return;
    }
    const Flight& flight = flights_.front();
    std::uint64_t step = flight.step;
    Sampled sampled = good_sampled(flight);
    std::vector<Token>& tokens = sampled.tokens;
    std::vector<std::int32_t>& counts = sampled.counts;
    const auto any = static_cast<std::size_t>(choices_.pick(0, 255));
    const std::int32_t kind = choices_.pick(0, 7);
    if (kind == 0) {  // 1 names the step behind, which may be in flight too
      step += choices_.of(std::array<std::uint64_t, 3>{1, ~std::uint64_t{0}, 1ULL << 63});
    } else if (kind == 1) {
      sampled.seconds =
          choices_.of(std::array{-1.0, -1e-300, 1.1e6, kNotANumber, kInfinity, -kInfinity});
    } else if (kind == 2 && !tokens.empty()) {
      tokens.pop_back();
    } else if (kind == 3 && !counts.empty()) {
      const std::int32_t most = flight.rows[any % counts.size()].samples;
      counts[any % counts.size()] = choices_.of(std::array{0, -1, most + 1, INT32_MIN, INT32_MAX});
    } else if (kind == 4 && counts.size() > 1) {
      counts.pop_back();
    } else if (kind == 5) {
      if (counts.empty()) counts.assign(flight.rows.size(), 1);
      counts.push_back(1);
      tokens.push_back(good_token());
    } else if (kind == 6 && !tokens.empty()) {
      tokens[any % tokens.size()] =
          choices_.of(std::array<Token, 4>{config().vocab_size, -2, INT32_MIN, INT32_MAX});
    } else {
      tokens.push_back(good_token());
    }
    refused<std::invalid_argument>(
        [&](Scheduler& s) { s.commit(step, tokens, counts, sampled.seconds); });
  }

  // Each sampling row whose request is still alive outputs its tokens up to the one that ends the
  // request, in row order, and nothing else is output.
  void check_output(const Flight& flight, const Sampled& sampled) {
    const Output& output = scheduler_.output_buffers();
    std::size_t at = 0;
    std::size_t begin = 0;
    for (std::size_t row = 0; row < flight.rows.size(); ++row) {
      const std::size_t end =
          begin + (sampled.counts.empty() ? 1 : static_cast<std::size_t>(sampled.counts[row]));
      const Seated seated = flight.rows[row].seated;
      for (std::size_t i = begin; i < end && alive(seated) != nullptr; ++i, ++at) {
        demand(at < output.request.size(), "a token is output");
        demand(output.request[at] == seated.request && output.token[at] == sampled.tokens[i] &&
                   output.row[at] == static_cast<std::int32_t>(row),
               "a token goes to the request that it was sampled for");
        Ask& ask = live_.at(seated.request);
        ask.length += output.token[at] == kNoToken ? 0 : 1;
        const std::int32_t cached = output.cached_tokens[at];
        demand(cached >= 0 && cached < ask.prompt_length && cached % config().page_size == 0 &&
                   (ask.cached_tokens < 0 || cached == ask.cached_tokens),
               "a request found whole pages, and less than its prompt");
        ask.cached_tokens = cached;
        const FinishReason expected = after(ask, sampled.tokens[i]);
        demand(output.finish[at] == static_cast<std::uint8_t>(expected), "an output ends in time");
        if (expected != FinishReason::kNone) live_.erase(seated.request);
      }
      begin = end;
    }
    demand(at == output.request.size(), "nothing else is output");
  }

  [[nodiscard]] static FinishReason after(const Ask& ask, Token last) {
    if (last == kNoToken) return FinishReason::kFailed;
    const bool stops =
        ask.length >= ask.min_length && std::ranges::find(ask.stops, last) != ask.stops.end();
    if (stops) return FinishReason::kStop;
    return ask.length >= ask.max_length ? FinishReason::kLength : FinishReason::kNone;
  }

  // The request that took a seat; null if it has ended.
  [[nodiscard]] const Ask* alive(const Seated& seated) const {
    const auto found = live_.find(seated.request);
    const bool ended = found == live_.end() || found->second.serial != seated.serial;
    return ended ? nullptr : &found->second;
  }

  [[nodiscard]] bool room_for_a_step() const {
    return flights_.size() <= static_cast<std::size_t>(config().overlap_depth);
  }
  [[nodiscard]] Token good_token() {
    return choices_.pick(0, std::min(config().vocab_size - 1, 255));
  }
  [[nodiscard]] std::vector<Token> good_tokens(std::int32_t count) {
    std::vector<Token> tokens;
    for (; count > 0; --count) tokens.push_back(good_token());
    return tokens;
  }
  [[nodiscard]] Token bad_token() {
    return choices_.of(std::array<Token, 4>{config().vocab_size, -1, INT32_MIN, INT32_MAX});
  }
  [[nodiscard]] const SchedulerConfig& config() const { return scheduler_.config(); }

  Choices& choices_;
  Scheduler scheduler_;
  Scheduler twin_;
  std::map<RequestId, Ask> live_;
  std::map<SlotId, Seated> seated_;  // who took a slot last
  std::deque<Flight> flights_;       // launched and not committed
  std::vector<Transfer> transfers_;  // under way
  std::set<std::uint64_t> named_;    // every transfer so far
  std::uint64_t serials_ = 0;
  double now_ = 0;
  std::int64_t commits_ = 0;
  std::int64_t retractions_ = 0;
  spec::RouterView router_;
  bool hidden_pages_ = false;
};

// Is the configuration refused? (Other values than good ones must not get further than this.)
bool is_refused(const SchedulerConfig& config, bool must_be) {
  try {
    validate(config);
  } catch (const std::exception& error) {
    demand(typeid(error) == typeid(std::invalid_argument), error.what());
    try {
      const Scheduler refused(config);
    } catch (const std::invalid_argument&) {
      return true;
    }
    demand(false, "a scheduler refuses a bad configuration");
  }
  demand(!must_be, "a bad configuration is refused");
  return false;
}

void fuzz(Choices& choices) {
  const bool abandoned = choices.once_in(8);  // destroyed in the middle of everything
  const ContentHash hash_mask = choices.once_in(4) ? 3 : ~ContentHash{0};  // collisions
  SchedulerConfig config = small_config(choices);
  if (choices.once_in(16) && is_refused(config, spoil(config, choices))) return;
  Session session(config, hash_mask, choices);
  session.run();
  if (!abandoned) session.finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Choices choices(data, size);
  try {
    fuzz(choices);
  } catch (const std::exception& error) {
    demand(false, error.what());
  }
  return 0;
}
