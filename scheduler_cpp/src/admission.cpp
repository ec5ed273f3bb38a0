// SPDX-License-Identifier: MIT
// Who gets a slot: in service order, but a request that does not fit does not stop one that does,
// until it has been overtaken often enough.
#include <algorithm>

#include "ts/scheduler.h"

namespace ts {
namespace {

// Waiting requests that do not fit and are looked at in one step.
constexpr int kBlockedWindow = 8;

}  // namespace

void Scheduler::admit_waiting() {
  std::vector<Request*> blocked;
  for (auto at = waiting_.begin(); at != waiting_.end();) {
    if (slot_pool_.free() == 0 || budget_left() == 0) return;
    Request& request = WaitingQueue::request(at);
    if (admit(at)) {
      for (Request* overtaken : blocked) ++overtaken->overtaken;
      const bool enough = std::ranges::any_of(
          blocked, [this](const Request* r) { return r->overtaken >= config_.max_overtakes; });
      if (enough) return;
      continue;
    }
    if (request.overtaken >= config_.max_overtakes) return;
    blocked.push_back(&request);
    if (blocked.size() == kBlockedWindow) return;
    ++at;
  }
}

// Admits the request if its prefill can be promised every page it needs; `at` then moves on.
bool Scheduler::admit(WaitingQueue::Iterator& at) {
  Request& request = WaitingQueue::request(at);
  const std::int32_t length = request.length();
  if (plan_.admitted_tokens.size() + request.tokens.size() > plan_.admitted_tokens.capacity()) {
    return false;
  }
  match_.pages.clear();
  match_.evictable = 0;
  // At least one token must be computed, for its logits.
  if (config_.enable_prefix_caching) {
    cache_.match(request.salt, request.tokens, (length - 1) / config_.page_size, match_);
  }
  const auto matched = static_cast<std::int32_t>(match_.pages.size());
  const std::int32_t promised = pages_for(length, config_.page_size) - matched;
  // A page for each running sequence stays available, so that admission does not cause retraction.
  const auto headroom = static_cast<std::int32_t>(running_.size());
  if (pool_.available() - match_.evictable < promised + headroom) return false;

  WaitingQueue::Entry entry = waiting_.take(at);
  Seat seat{slot_pool_.take(), {}};
  const SlotId id = seat.slot.id();
  seat.pages.prefix.reserve(
      static_cast<std::size_t>(pages_for(request.stop.max_length(), config_.page_size)));
  for (const PageId page : match_.pages) seat.pages.prefix.push_back(cache_.acquire(page));
  seat.pages.cacheable = config_.enable_prefix_caching;
  const std::int32_t cached = matched * config_.page_size;
  if (request.cached_tokens == Request::kUnset) {
    request.cached_tokens = cached;
    if (config_.enable_prefix_caching) {
      totals_.prefix_query_tokens += request.prompt_length;
      totals_.prefix_hit_tokens += cached;
    }
  }
  request.overtaken = 0;
  places_.at(request.id).slot = id;
  const auto younger = std::ranges::upper_bound(
      running_, request.order, {}, [this](SlotId other) { return request_in(other).order; });
  running_.insert(younger, id);
  Slot& state = slot(id);
  state = std::visit(
      [&](auto&& waiting) {
        return Lifecycle::admit(std::move(waiting), std::move(seat), pool_.reserve(promised),
                                cached);
      },
      std::move(entry));
  auto& prefilling = std::get<Prefilling>(state);
  emit_admission(prefilling);
  plan_chunk(id, prefilling);
  return true;
}

void Scheduler::emit_admission(const Prefilling& state) {
  const Request& request = state.request();
  plan_.admitted_slot.push(state.seat().slot.id());
  plan_.admitted_request.push(request.id);
  plan_.admitted_prompt_tokens.push(request.prompt_length);
  plan_.admitted_tokens.append(request.tokens);
  plan_.admitted_offset.push(static_cast<std::int32_t>(plan_.admitted_tokens.size()));
  if (request.params.empty()) {
    for (std::int32_t i = 0; i < config_.params_size; ++i) plan_.admitted_params.push({});
  } else {
    plan_.admitted_params.append(request.params);
  }
}

}  // namespace ts
