// SPDX-License-Identifier: MIT
// Who is admitted gets a slot, pages, and a transfer or a first chunk.
#include <algorithm>
#include <utility>

#include "ts/scheduler.h"

namespace ts {
namespace {

// What was received once is computed here if it has to be done again.
constexpr Role after_admission(Role role) {
  return role == Role::kDecode ? Role::kAggregated : role;
}

}  // namespace

void Scheduler::admit_waiting() {
  if (slot_pool_.free() == 0) return;
  StepShape running = everyone_decoding();
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    if (slot_pool_.free() == 0 || budget_left() == 0) return;
    Request& request = WaitingQueue::request(at);
    if (!floor_.admits(running, request.length())) {
      if (current_->plan.admitted_slot.size() == 0) floor_.hold_admission();
      return;
    }
    const auto answer = admission_.consider(request, static_cast<std::int32_t>(running_.size()));
    if (answer == AdmissionPolicy::Answer::kFits) {
      if (!current_->admit(request, config_.params_size)) return;
      running.add_decode(request.length());
      seat(at);
      if (!admission_.overtake()) return;
      continue;
    }
    ++at;
    if (!admission_.pass_over(request, answer)) return;
  }
}

// What the running sequences cost in a step once all of them decode.
StepShape Scheduler::everyone_decoding() const {
  StepShape shape;
  if (config_.min_tps_per_user <= 0 || waiting_.size() == 0) return shape;
  for (const SlotId id : running_) {
    shape.add_decode(sequence_in(id)->request().length());
  }
  shape.beside_transfers = current_->shape.beside_transfers;
  return shape;
}

// Takes the request out of the queue, `at` moving on, and begins its prefill, or the loading of its
// prefix.
void Scheduler::seat(WaitingQueue::Iterator& at) {
  Request& request = WaitingQueue::request(at);
  WaitingQueue::Entry entry = waiting_.take(at);
  const PrefixMatch& match = admission_.found();
  // References first: what was found must outlive the evictions that taking pages brings.
  Seat seat = std::make_unique<Holdings>(Holdings{slot_pool_.take(), {}, Reservation::none(), {}});
  const SlotId id = seat->slot.id();
  seat->pages.reserve(pages_for(request.stop.max_length(), config_.page_size));
  const auto on_device = static_cast<std::size_t>(match.on_device);
  const std::span<const BlockId> here = std::span(match.blocks).first(on_device);
  const std::span<const BlockId> in_host = std::span(match.blocks).subspan(on_device);
  for (const BlockId block : here) seat->pages.match(cache_.acquire(kFullAttention, block));
  for (const BlockId block : in_host) cache_.host().pin(block);
  seat->groups = groups_.match(match);
  seat->promised = pool_.reserve(admission_.promise_to(request));
  if (!config_.enable_prefix_caching) seat->pages.never_cache();

  const std::int32_t found = match.pages() * config_.page_size;
  const bool first = request.cached_tokens == Request::kUnset;
  request.counts_on_load = first && !in_host.empty();
  if (first) {
    request.cached_tokens = found;
    if (config_.enable_prefix_caching) {
      totals_.prefix_query_tokens += request.prompt_length();
      totals_.prefix_hit_tokens += found;
    }
  }
  request.overtaken = 0;
  places_.at(request.id).slot = id;
  const auto younger = std::ranges::upper_bound(running_, request.order, {}, [this](SlotId other) {
    return sequence_in(other)->request().order;
  });
  running_.insert(younger, id);
  current_->plan.admitted_slot.push(id);
  if (std::exchange(request.role, after_admission(request.role)) == Role::kDecode) {
    return begin_receive(entry, std::move(seat));
  }
  if (!in_host.empty()) return begin_load(entry, std::move(seat), in_host);
  Prefilling prefilling = std::visit(
      [&](auto& state) { return Lifecycle::admit(std::move(state), std::move(seat), found); },
      entry);
  slot(id) = InFlight<Prefilling>(std::move(prefilling), kNoStep);
  begin_prefill(id);
}

void Scheduler::begin_load(WaitingQueue::Entry& entry, Seat&& seat,
                           std::span<const BlockId> in_host) {
  const SlotId id = seat->slot.id();
  const RequestId request = current_->plan.admitted_request.back();
  Load load{request, id, {in_host.begin(), in_host.end()}, {}};
  seat->loaded.first_column = admission_.found().on_device;
  for (const BlockId block : in_host) seat->loaded.expanded.push_back(cache_.expanded(block));
  take_pages_to_load(admission_.found().pages(), *seat, load);
  const TransferId transfer = transfers_.begin(std::move(load));
  const std::int32_t cached = admission_.found().on_device * config_.page_size;
  const std::int32_t found = admission_.found().pages() * config_.page_size;
  slot(id) = std::visit(
      [&](auto& state) {
        return InFlight<Loading, TransferToken>(
            Lifecycle::load(std::move(state), std::move(seat), cached, found), transfer);
      },
      entry);
  admission_.note_computing(*sequence_in(id));
}

// Nobody but the load writes them: what they held is stored beside the steps, too.
void Scheduler::take_pages_to_load(std::int32_t columns, Holdings& seat, Load& load) {
  const std::size_t others = cache_.host().pending();
  while (seat.pages.columns() < columns) {
    PageLease page = pool_.take(seat.promised);
    load.device_pages.push_back(page.id());
    seat.pages.append(std::move(page));
  }
  transfers_.displace(cache_.host().take_write_backs(others));
}

// The KV of every token but the last comes from a peer; the last one is computed here, for its
// logits.
void Scheduler::begin_receive(WaitingQueue::Entry& entry, Seat&& seat) {
  Waiting& waiting = std::get<Waiting>(entry);
  const SlotId id = seat->slot.id();
  const std::int32_t cached = admission_.found().on_device * config_.page_size;
  const std::int32_t received = std::max(cached, waiting.request().length() - 1);
  Load load{waiting.request().id, id, {}, {}};
  take_pages_to_load(pages_for(received, config_.page_size), *seat, load);
  const TransferId transfer = transfers_.begin(std::move(load));
  slot(id) = InFlight<Receiving, TransferToken>(
      Lifecycle::receive(std::move(waiting), std::move(seat), cached, received), transfer);
  admission_.note_computing(*sequence_in(id));
}

// The first chunk, with a page to begin with in each further group.
void Scheduler::begin_prefill(SlotId id) {
  while (PagePool* pool = lacking(id)) {
    if (pool->available() == 0) return;
    groups_.give_spare(*pool, *running_in(id));
  }
  plan_chunk(*running_in(id));
}

}  // namespace ts
