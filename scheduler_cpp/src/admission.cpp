// SPDX-License-Identifier: MIT
// Who gets a slot: in service order, but a request that does not fit does not stop one that does,
// until it has been overtaken often enough.
#include <algorithm>
#include <utility>

#include "ts/scheduler.h"

namespace ts {
namespace {

constexpr std::size_t kWindow = 32;  // requests passed over in one step

// What was received once is computed here if it has to be done again.
constexpr Role after_admission(Role role) {
  return role == Role::kDecode ? Role::kAggregated : role;
}

}  // namespace

void Scheduler::admit_waiting() {
  blocked_.clear();
  StepShape running = everyone_decoding();
  std::size_t passed_over = 0;
  for (auto at = waiting_.begin(); at != waiting_.end() && passed_over < kWindow;) {
    if (slot_pool_.free() == 0 || budget_left() == 0) return;
    Request& request = WaitingQueue::request(at);
    if (!floor_.admits(running, request.length())) {
      if (current_->plan.admitted_slot.size() == 0) floor_.hold_admission();
      return;
    }
    const Admission admission = consider(request);
    if (admission == Admission::kFits) {
      if (!emit_admission(request)) return;
      running.add_decode(request.length());
      seat(at);
      bool enough = false;
      for (Request* overtaken : blocked_) {
        enough |= ++overtaken->overtaken >= config_.max_overtakes;
      }
      if (enough) return;
      continue;
    }
    ++at;
    ++passed_over;
    if (admission == Admission::kBlocked) {
      if (request.overtaken >= config_.max_overtakes) return;
      blocked_.push_back(&request);
    }
  }
}

// What the running sequences cost in a step once all of them decode.
StepShape Scheduler::everyone_decoding() const {
  StepShape shape;
  if (config_.min_tps_per_user <= 0 || waiting_.size() == 0) return shape;
  for (const SlotId id : running_) {
    shape.add_decode(sequence_in(id)->request().length());
  }
  return shape;
}

// Leaves the request's cached prefix in match_ if it fits. Who does not is asked again in every
// step, so nothing before the match depends on how long a prompt is.
Scheduler::Admission Scheduler::consider(Request& request) {
  // At least one token must be computed, for its logits.
  const auto matchable = static_cast<std::size_t>((request.length() - 1) / config_.page_size);
  const std::span<const ContentHash> names =
      name_pages(request).first(config_.enable_prefix_caching ? matchable : 0);
  // What is computed or loaded now is there to be matched soon.
  const auto is_its_own = [&](const NamedPage& page) {
    return page.column < names.size() && names[page.column] == page.name;
  };
  if (std::ranges::any_of(computing_, is_its_own)) return Admission::kWaits;
  // A page for each running sequence stays available, so that admission causes no retraction.
  const std::int32_t available = pool_.available() - static_cast<std::int32_t>(running_.size());
  if (!groups_.fit(request, static_cast<std::int32_t>(running_.size())) ||
      !may_fit(request, names, available))
    return Admission::kBlocked;
  cache_.match(request.salt, request.tokens, names, request.forms, match_);
  if (request.role == Role::kDecode) {
    match_.blocks.resize(static_cast<std::size_t>(match_.on_device));  // a peer sends the rest
  }
  const std::int32_t needed = promise_to(request) + match_.evictable;
  return needed <= available ? Admission::kFits : Admission::kBlocked;
}

// What a request does not find in use, it takes from the available pages. False only if it does not
// find enough.
bool Scheduler::may_fit(const Request& request, std::span<const ContentHash> names,
                        std::int32_t available) const {
  const std::int32_t whole = pages_for(request.length(), config_.page_size);
  if (whole <= available) return true;
  const auto to_find = static_cast<std::size_t>(whole - available);
  return to_find <= names.size() && cache_.may_be_in_use(names.first(to_find));
}

// The pages that finish the prefill of a request whose cached prefix is in match_.
std::int32_t Scheduler::promise_to(const Request& request) const {
  return pages_for(request.length(), config_.page_size) - match_.on_device;
}

// Takes the request out of the queue, `at` moving on, and begins its prefill, or the loading of its
// prefix.
void Scheduler::seat(WaitingQueue::Iterator& at) {
  Request& request = WaitingQueue::request(at);
  WaitingQueue::Entry entry = waiting_.take(at);
  // References first: what was found must outlive the evictions that taking pages brings.
  Seat seat = std::make_unique<Holdings>(Holdings{slot_pool_.take(), {}, Reservation::none(), {}});
  const SlotId id = seat->slot.id();
  seat->pages.reserve(pages_for(request.stop.max_length(), config_.page_size));
  const auto on_device = static_cast<std::size_t>(match_.on_device);
  const std::span<const BlockId> here = std::span(match_.blocks).first(on_device);
  const std::span<const BlockId> in_host = std::span(match_.blocks).subspan(on_device);
  for (const BlockId block : here) seat->pages.match(cache_.acquire(kFullAttention, block));
  for (const BlockId block : in_host) cache_.host().pin(block);
  seat->groups = groups_.match(match_);
  seat->promised = pool_.reserve(promise_to(request));
  if (!config_.enable_prefix_caching) seat->pages.never_cache();

  const std::int32_t found = match_.pages() * config_.page_size;
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
  const TransferId transfer = transfer_clock_.begin();
  Load& load =
      loads_.emplace_back(Load{transfer, request, id, {in_host.begin(), in_host.end()}, {}});
  seat->loaded.first_column = match_.on_device;
  for (const BlockId block : in_host) {
    seat->loaded.expanded.push_back(cache_.expanded(block));
    PageLease page = pool_.take(seat->promised);
    load.device_pages.push_back(page.id());
    seat->pages.append(std::move(page));
  }
  const std::int32_t cached = match_.on_device * config_.page_size;
  const std::int32_t found = match_.pages() * config_.page_size;
  slot(id) = std::visit(
      [&](auto& state) {
        return InFlight<Loading, TransferToken>(
            Lifecycle::load(std::move(state), std::move(seat), cached, found), transfer);
      },
      entry);
  note_computing(*sequence_in(id));
}

// The KV of every token but the last comes from a peer; the last one is computed here, for its
// logits.
void Scheduler::begin_receive(WaitingQueue::Entry& entry, Seat&& seat) {
  Waiting& waiting = std::get<Waiting>(entry);
  const SlotId id = seat->slot.id();
  const std::int32_t cached = match_.on_device * config_.page_size;
  const std::int32_t received = std::max(cached, waiting.request().length() - 1);
  const TransferId transfer = transfer_clock_.begin();
  Load& load = loads_.emplace_back(Load{transfer, waiting.request().id, id, {}, {}});
  while (seat->pages.columns() < pages_for(received, config_.page_size)) {
    PageLease page = pool_.take(seat->promised);
    load.device_pages.push_back(page.id());
    seat->pages.append(std::move(page));
  }
  slot(id) = InFlight<Receiving, TransferToken>(
      Lifecycle::receive(std::move(waiting), std::move(seat), cached, received), transfer);
  note_computing(*sequence_in(id));
}

// The first chunk, with a page to begin with in each further group.
void Scheduler::begin_prefill(SlotId id) {
  while (PagePool* pool = lacking(id)) {
    if (pool->available() == 0) return;
    groups_.give_spare(*pool, *running_in(id));
  }
  plan_chunk(*running_in(id));
}

// False if the plan has no room left for the request's tokens.
bool Scheduler::emit_admission(const Request& request) {
  Plan& plan = current_->plan;
  Column<Token>& tokens = plan.admitted_tokens;
  if (tokens.size() + request.tokens.size() > tokens.capacity()) return false;
  plan.admitted_request.push(request.id);
  plan.admitted_prompt_tokens.push(request.prompt_length());
  tokens.append(request.tokens);
  plan.admitted_offset.push(static_cast<std::int32_t>(tokens.size()));
  if (request.params.empty()) {
    for (std::int32_t i = 0; i < config_.params_size; ++i) plan.admitted_params.push({});
  } else {
    plan.admitted_params.append(request.params);
  }
  return true;
}

}  // namespace ts
