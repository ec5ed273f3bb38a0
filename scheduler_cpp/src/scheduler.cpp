// SPDX-License-Identifier: MIT
#include "ts/scheduler.h"

#include <algorithm>

#include "ts/submission.h"

namespace ts {
namespace {

SchedulerConfig validated(const SchedulerConfig& config) {
  validate(config);
  return config;
}

}  // namespace

Scheduler::Scheduler(const SchedulerConfig& config, ContentHash hash_mask)
    : config_(validated(config)),
      events_(config.enable_kv_events && config.enable_prefix_caching, config.page_size,
              config.dp_rank),
      cache_({.num_pages = config.num_pages,
              .page_size = config.page_size,
              .groups = config.cache_groups,
              .num_host_pages = config.num_host_pages,
              .hash_mask = hash_mask},
             salts_, events_),
      pool_(config.num_pages, cache_),
      groups_(config_, cache_),
      admission_(config_, cache_, pool_, groups_),
      slot_pool_(config.max_num_seqs),
      slots_(static_cast<std::size_t>(config.max_num_seqs)),
      output_(config),
      floor_(config.min_tps_per_user) {
  running_.reserve(slots_.size());
  chunks_.reserve(slots_.size());
  steps_.reserve(1 + static_cast<std::size_t>(config.overlap_depth));
  for (std::int32_t i = 0; i <= config.overlap_depth; ++i) {
    steps_.emplace_back(config);
  }
  current_ = steps_.data();
}

Scheduler::~Scheduler() {
  // Nothing reads the pages any more: end every request, then retire what was in flight.
  while (!places_.empty()) abort(places_.begin()->first);
  while (clock_.in_flight()) {
    const StepId step = clock_.oldest_in_flight();
    const StepToken token = clock_.retire(step);
    for (const PlannedStep::Row& row : steps_[step.number() % steps_.size()].rows)
      drain(row.slot, token);
    free_replaced(token);
  }
  transfers_.name_no_more();
  while (!transfers_.under_way().empty()) {
    complete_transfer(transfers_.under_way().begin()->first.number(), false);
  }
}

void Scheduler::submit(const Submission& submission) {
  check_submission(submission, config_);
  if (places_.contains(submission.id)) {
    throw std::invalid_argument("request_id is " + std::to_string(submission.id) +
                                ", but a request of that id is still alive; ids must be unique");
  }
  RequestPtr request = make_request(submission, config_, requests_, salts_, arrivals_);
  admission_.name_pages(*request);
  const ServiceOrder order = request->order;
  places_.emplace(submission.id, Place{order, kNoSlot});
  waiting_.push(Lifecycle::submit(std::move(request)));
  ++arrivals_;
}

bool Scheduler::abort(RequestId id) {
  const auto found = places_.find(id);
  if (found == places_.end()) return false;
  const Place place = found->second;
  places_.erase(found);
  if (place.slot == kNoSlot) {
    auto at = waiting_.find(place.order);
    WaitingQueue::Entry entry = waiting_.take(at);
    std::visit([](auto& state) { (void)Lifecycle::abort(std::move(state)); }, entry);
    return true;
  }
  std::erase(running_, place.slot);
  Slot& state = slot(place.slot);
  if (auto* loading = std::get_if<InFlight<Loading, TransferToken>>(&state)) {
    state = Lifecycle::abort(std::move(*loading));
    return true;
  }
  if (auto* receiving = std::get_if<InFlight<Receiving, TransferToken>>(&state)) {
    state = Lifecycle::abort(std::move(*receiving));
    return true;
  }
  InFlight<Prefilling>* const prefilling = prefilling_in(place.slot);
  InFlight<Decoding>* const decoding = decoding_in(place.slot);
  if (in_flight_in(place.slot)) {
    state = prefilling != nullptr ? Lifecycle::abort(std::move(*prefilling))
                                  : Lifecycle::abort(std::move(*decoding));
    ++draining_;
    return true;
  }
  const StepToken token = clock_.retired();
  auto left = prefilling != nullptr ? Lifecycle::abort(std::move(*prefilling).retire(token))
                                    : Lifecycle::abort(std::move(*decoding).retire(token));
  state = std::monostate{};
  release(std::move(left.seat), token);
  return true;
}

std::string Scheduler::drain_kv_events(double timestamp) {
  return events_.empty() ? std::string() : events_.drain(timestamp);
}

bool Scheduler::clear_prefix_cache() {
  if (pool_.free() + cache_.evictable() < config_.num_pages) return false;
  while (cache_.evictable() > 0) pool_.give_back(cache_.forget());
  cache_.host().clear();
  events_.cleared();
  return true;
}

Stats Scheduler::stats() const {
  Stats stats = totals_;
  stats.waiting = static_cast<std::int32_t>(waiting_.size());
  stats.running = static_cast<std::int32_t>(running_.size());
  stats.host_pages_cached = cache_.host().pages_held();
  if (!transfers_.under_way().empty()) {
    stats.loading = static_cast<std::int32_t>(std::ranges::count_if(
        running_, [this](SlotId id) { return is_loading(slots_[static_cast<std::size_t>(id)]); }));
  }
  stats.pages_cached = cache_.evictable();
  stats.pages_free = pool_.free();
  stats.pages_used = config_.num_pages - stats.pages_free - stats.pages_cached;
  return stats;
}

// Last page first: a page waits for eviction behind its descendants (prefix_cache.h).
void Scheduler::release(Seat&& seat, const StepToken& token) {
  pool_.give_back(std::move(seat->promised));
  // Further groups first: a page that is withdrawn leaves them all with the last reference to it.
  groups_.release(std::move(seat->groups), token);
  std::move(seat->pages)
      .vacate(
          token, [this](PageLease&& page) { pool_.give_back(std::move(page)); },
          [this](SharedPage&& page) {
            auto free = cache_.release(kFullAttention, std::move(page));
            if (free) pool_.give_back(std::move(*free));
          });
  slot_pool_.give_back(std::move(seat->slot));
}

std::span<const Token> Scheduler::page_tokens(const Request& request, std::int32_t column) const {
  const auto size = static_cast<std::size_t>(config_.page_size);
  return std::span(request.tokens).subspan(static_cast<std::size_t>(column) * size, size);
}

}  // namespace ts
