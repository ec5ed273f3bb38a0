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
      cache_(config.num_pages, config.page_size, salts_, events_, hash_mask),
      pool_(config.num_pages, cache_),
      slot_pool_(config.max_num_seqs),
      slots_(static_cast<std::size_t>(config.max_num_seqs)),
      plan_(config),
      output_(config) {
  running_.reserve(slots_.size());
  rows_.reserve(slots_.size());
  chunks_.reserve(slots_.size());
}

Scheduler::~Scheduler() {
  // Nothing reads the pages any more: end every request, then retire what was in flight.
  while (!places_.empty()) abort(places_.begin()->first);
  while (clock_.in_flight()) {
    const StepToken token = clock_.retire(clock_.oldest_in_flight());
    std::int32_t sample = 0;
    for (const Row& row : rows_) commit_row(row, token, {}, sample);
  }
}

void Scheduler::submit(const Submission& submission) {
  check_submission(submission, config_);
  if (places_.contains(submission.id)) {
    throw std::invalid_argument("request_id is " + std::to_string(submission.id) +
                                ", but a request of that id is still alive; ids must be unique");
  }
  RequestPtr request = make_request(submission, config_, requests_, salts_, arrivals_);
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
  if (auto* resting = std::get_if<Prefilling>(&state)) {
    auto left = Lifecycle::abort(std::move(*resting));
    release(std::move(left.seat), std::move(left.promised));
    state = std::monostate{};
  } else if (auto* decoding = std::get_if<Decoding>(&state)) {
    auto left = Lifecycle::abort(std::move(*decoding));
    release(std::move(left.seat), std::move(left.promised));
    state = std::monostate{};
  } else if (auto* prefilling_in_flight = std::get_if<InFlight<Prefilling>>(&state)) {
    state = Lifecycle::abort(std::move(*prefilling_in_flight));
  } else {
    state = Lifecycle::abort(std::move(std::get<InFlight<Decoding>>(state)));
  }
  return true;
}

std::string Scheduler::drain_kv_events(double timestamp) {
  return events_.empty() ? std::string() : events_.drain(timestamp);
}

bool Scheduler::clear_prefix_cache() {
  if (slot_pool_.free() < config_.max_num_seqs) return false;
  while (cache_.evictable() > 0) pool_.give_back(cache_.forget());
  events_.cleared();
  return true;
}

Stats Scheduler::stats() const {
  Stats stats = totals_;
  stats.waiting = static_cast<std::int32_t>(waiting_.size());
  stats.running = static_cast<std::int32_t>(running_.size());
  stats.pages_cached = cache_.evictable();
  stats.pages_free = pool_.free();
  stats.pages_used = config_.num_pages - stats.pages_free - stats.pages_cached;
  return stats;
}

// Last page first: a page waits for eviction behind its descendants (prefix_cache.h).
void Scheduler::release(Seat&& seat, Reservation&& promised) {
  pool_.give_back(std::move(promised));
  SequencePages& pages = seat.pages;
  for (; !pages.tail.empty(); pages.tail.pop_back()) pool_.give_back(std::move(pages.tail.back()));
  for (; !pages.prefix.empty(); pages.prefix.pop_back()) {
    cache_.release(std::move(pages.prefix.back()));
  }
  slot_pool_.give_back(std::move(seat.slot));
}

std::span<const Token> Scheduler::page_tokens(const Request& request, std::int32_t column) const {
  const auto size = static_cast<std::size_t>(config_.page_size);
  return std::span(request.tokens).subspan(static_cast<std::size_t>(column) * size, size);
}

const Request& Scheduler::request_in(SlotId id) const {
  const Slot& state = slots_[static_cast<std::size_t>(id)];
  if (const auto* prefilling = std::get_if<Prefilling>(&state)) return prefilling->request();
  if (const auto* decoding = std::get_if<Decoding>(&state)) return decoding->request();
  if (const auto* flying = std::get_if<InFlight<Prefilling>>(&state))
    return flying->peek().request();
  return std::get<InFlight<Decoding>>(state).peek().request();
}

}  // namespace ts
