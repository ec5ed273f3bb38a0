// SPDX-License-Identifier: MIT
// The Python module: argument checks, the GIL, and views. No decision is made here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "arguments.h"
#include "config.h"
#include "ts/scheduler.h"
#include "views.h"

namespace ts::python {
namespace {

Role role_argument(nb::handle value) {
  if (!PyUnicode_Check(value.ptr())) throw nb::type_error("role must be a str");
  const std::string text = nb::str(value).c_str();
  if (text == "aggregated") return Role::kAggregated;
  if (text == "prefill") return Role::kPrefill;
  if (text == "decode") return Role::kDecode;
  throw nb::value_error(
      ("role is '" + text + "'; it must be 'aggregated', 'prefill' or 'decode'").c_str());
}

// Calls from several threads take turns; a waiting thread does not hold the GIL.
class SchedulerObject {
  template <class Call>
  auto alone(Call call) {
    const nb::gil_scoped_release without_gil;
    const std::lock_guard lock(mutex_);
    return call();
  }

 public:
  explicit SchedulerObject(const SchedulerConfig& config)
      : scheduler_(std::make_shared<Scheduler>(config)), output_(nb::cast(OutputView(scheduler_))) {
    for (std::int32_t i = 0; i <= config.overlap_depth; ++i) {
      plans_.push_back(nb::cast(PlanView(scheduler_, static_cast<std::size_t>(i))));
    }
  }

  void submit(nb::handle request_id, nb::handle prompt, nb::handle max_tokens,
              nb::handle min_tokens, nb::handle eos_token_ids, nb::handle stop_token_ids,
              nb::handle ignore_eos, nb::handle cache_salt, nb::handle priority, nb::handle params,
              nb::handle role) {
    const BufferArgument prompt_buffer(prompt, "prompt", true);
    const BufferArgument salt_buffer(cache_salt, "cache_salt", false);
    const BufferArgument params_buffer(params, "params", false);
    const std::vector<Token> eos = token_set_argument(eos_token_ids, "eos_token_ids");
    const std::vector<Token> stops = token_set_argument(stop_token_ids, "stop_token_ids");
    const auto salt = salt_buffer.bytes();
    const Submission submission{
        .id = unsigned_argument(request_id, "request_id"),
        .prompt = prompt_buffer.tokens(),
        .max_tokens = integer_argument(max_tokens, "max_tokens"),
        .min_tokens = integer_argument(min_tokens, "min_tokens"),
        .eos_token_ids = eos,
        .stop_token_ids = stops,
        .ignore_eos = bool_argument(ignore_eos, "ignore_eos"),
        .cache_salt = {reinterpret_cast<const char*>(salt.data()), salt.size()},
        .priority = integer_argument(priority, "priority"),
        .params = params_buffer.bytes(),
        .role = role_argument(role),
    };
    alone([&] { scheduler_->submit(submission); });
  }

  bool abort(nb::handle request_id) {
    const RequestId id = unsigned_argument(request_id, "request_id");
    return alone([&] { return scheduler_->abort(id); });
  }

  nb::object plan() {
    const bool planned = alone([&] { return scheduler_->plan(); });
    return planned ? plans_[scheduler_->current_buffers()] : nb::none();
  }

  nb::object commit(nb::handle step, nb::handle token_ids, nb::handle counts, nb::handle seconds) {
    const std::uint64_t number = unsigned_argument(step, "step");
    const BufferArgument sampled(token_ids, "token_ids", true);
    std::optional<BufferArgument> per_row;
    if (!counts.is_none()) per_row.emplace(counts, "counts", true);
    const double duration = seconds.is_none() ? 0.0 : real_argument(seconds, "seconds");
    // Given, but without an entry, is not the same as not given.
    if (per_row && per_row->tokens().empty() && !sampled.tokens().empty()) {
      throw nb::value_error("counts has no entries, but token_ids has some");
    }
    alone([&] {
      scheduler_->commit(number, sampled.tokens(),
                         per_row ? per_row->tokens() : std::span<const Token>(), duration);
    });
    return output_;
  }

  void complete_transfer(nb::handle transfer_id, nb::handle ok) {
    const std::uint64_t id = unsigned_argument(transfer_id, "transfer_id");
    const bool arrived = bool_argument(ok, "ok");
    alone([&] { scheduler_->complete_transfer(id, arrived); });
  }

  std::vector<std::uint64_t> overdue_transfers(nb::handle now) {
    const double seconds = real_argument(now, "now");
    return alone([&] { return scheduler_->overdue_transfers(seconds); });
  }

  nb::object kv_events(nb::handle timestamp) {
    const double seconds = real_argument(timestamp, "timestamp");
    const std::string payload = alone([&] { return scheduler_->drain_kv_events(seconds); });
    if (payload.empty()) return nb::none();
    return nb::bytes(payload.data(), payload.size());
  }

  void announce_cache() {
    alone([&] { scheduler_->announce_cache(); });
  }
  bool clear_prefix_cache() {
    return alone([&] { return scheduler_->clear_prefix_cache(); });
  }
  Stats stats() {
    return alone([&] { return scheduler_->stats(); });
  }
  FloorReport floor() {
    return alone([&] { return scheduler_->floor(); });
  }
  void check_invariants() {
    alone([&] { scheduler_->check_invariants(); });
  }
  [[nodiscard]] SchedulerConfig config() const { return scheduler_->config(); }
  [[nodiscard]] std::size_t arena_words() const {
    return scheduler_->plan_buffers(0).arena_words();
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<Scheduler> scheduler_;
  std::vector<nb::object> plans_;
  nb::object output_;
};

}  // namespace
}  // namespace ts::python

NB_MODULE(_core, module) {
  namespace nb = nanobind;
  using namespace nb::literals;
  using ts::SchedulerConfig;
  using ts::Stats;
  using namespace ts::python;

  module.doc() = "The C++ scheduler; see ts_scheduler.";
  bind_config(module);
  PlanView::bind(module);
  OutputView::bind(module);

  nb::class_<Stats>(module, "Stats", "Scheduler state between two calls.")
      .def_ro("waiting", &Stats::waiting)
      .def_ro("running", &Stats::running)
      .def_ro("loading", &Stats::loading)
      .def_ro("pages_used", &Stats::pages_used)
      .def_ro("pages_cached", &Stats::pages_cached)
      .def_ro("pages_free", &Stats::pages_free)
      .def_ro("host_pages_cached", &Stats::host_pages_cached)
      .def_ro("prefix_query_tokens", &Stats::prefix_query_tokens)
      .def_ro("prefix_hit_tokens", &Stats::prefix_hit_tokens)
      .def_ro("retractions", &Stats::retractions)
      .def_ro("steps", &Stats::steps);

  using ts::FloorReport;
  nb::class_<FloorReport>(module, "FloorReport", "The TPS floor, since start.")
      .def_ro("users", &FloorReport::users)
      .def_ro("attained_p1", &FloorReport::attained_p1)
      .def_ro("attained_p50", &FloorReport::attained_p50)
      .def_ro("held_prefill_tokens", &FloorReport::held_prefill_tokens)
      .def_ro("held_admissions", &FloorReport::held_admissions)
      .def_ro("predicted_step_seconds", &FloorReport::predicted_step_seconds);

  nb::class_<SchedulerObject>(module, "Scheduler")
      .def(nb::init<const SchedulerConfig&>(), "config"_a)
      .def("submit", &SchedulerObject::submit, "request_id"_a.none(), "prompt"_a.none(),
           nb::kw_only(), "max_tokens"_a.none(), "min_tokens"_a.none() = 0,
           "eos_token_ids"_a.none() = nb::tuple(), "stop_token_ids"_a.none() = nb::tuple(),
           "ignore_eos"_a.none() = false, "cache_salt"_a.none() = nb::bytes(""),
           "priority"_a.none() = 0, "params"_a.none() = nb::bytes(""),
           "role"_a.none() = "aggregated",
           "Queue a request; ValueError with one sentence if it can never run.")
      .def("abort", &SchedulerObject::abort, "request_id"_a.none(),
           "End a request now; True if this call ended it and nothing more will be reported.")
      .def("plan", &SchedulerObject::plan, "Plan and launch the next step; None if idle.")
      .def("commit", &SchedulerObject::commit, "step"_a.none(), "token_ids"_a.none(),
           "counts"_a.none() = nb::none(), "seconds"_a.none() = nb::none(),
           "Hand in the step's tokens (int32, in row order): `counts` of each sampling row (None: "
           "one), and how long the step took.")
      .def("complete_transfer", &SchedulerObject::complete_transfer, "transfer_id"_a.none(),
           "ok"_a.none() = true, "A plan's transfer has ended, well or not; in any order.")
      .def("overdue_transfers", &SchedulerObject::overdue_transfers, "now"_a.none(),
           "Transfers with a peer, under way for peer_timeout: stop them, then complete_transfer("
           "id, ok=False).")
      .def("kv_events", &SchedulerObject::kv_events, "timestamp"_a.none(),
           "The msgpack payload [timestamp, [events], dp_rank] since the last call, or None.")
      .def(
          "announce_cache", &SchedulerObject::announce_cache,
          "Begin the events anew: the next payload clears, then stores all that is cached, parents "
          "first. O(pages).")
      .def("clear_prefix_cache", &SchedulerObject::clear_prefix_cache,
           "Empty the prefix cache; False, and nothing changes, while a sequence holds pages.")
      .def("stats", &SchedulerObject::stats)
      .def("floor", &SchedulerObject::floor,
           "What users attained, and what the floor of tokens/s under them cost.")
      .def("check_invariants", &SchedulerObject::check_invariants,
           "RuntimeError naming the first violated invariant; O(pages), for tests.")
      .def_prop_ro("config", &SchedulerObject::config)
      .def_prop_ro("arena_words", &SchedulerObject::arena_words,
                   "What Plan.pack() needs at most, in int32 words.");
}
