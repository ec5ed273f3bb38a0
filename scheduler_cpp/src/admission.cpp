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

constexpr std::uint64_t kLookAgain = 16;  // steps until one that lacked pages is matched again

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
  shape.beside_transfers = current_->shape.beside_transfers;
  return shape;
}

// Leaves the request's cached prefix in match_ if it fits.
Scheduler::Admission Scheduler::consider(Request& request) {
  // A page for each running sequence stays available, so that admission causes no retraction.
  const std::int32_t available = pool_.available() - static_cast<std::int32_t>(running_.size());
  if (available < request.lacking && clock_.launched() - request.looked_up < kLookAgain) {
    return Admission::kBlocked;
  }
  const std::int32_t length = request.length();
  // At least one token must be computed, for its logits.
  const std::int32_t matchable = (length - 1) / config_.page_size;
  match_.blocks.clear();
  match_.on_device = 0;
  match_.evictable = 0;
  if (config_.enable_prefix_caching) {
    cache_.match(request.salt, request.tokens, request.forms, matchable, match_);
    // What a running prefill computes in this step is there to be matched after it.
    const std::int32_t matched = match_.on_device;
    if (matched < matchable && !computing_.empty()) {
      const BlockId last =
          matched == 0 ? kNoBlock : match_.blocks[static_cast<std::size_t>(matched - 1)];
      const ContentHash next =
          cache_.chained_hash(request.salt, last, page_tokens(request, matched));
      if (std::ranges::find(computing_, next) != computing_.end()) return Admission::kWaits;
    }
  }
  if (request.role == Role::kDecode) {
    match_.blocks.resize(static_cast<std::size_t>(match_.on_device));  // a peer sends the rest
  }
  const std::int32_t needed = promise_to(request) + match_.evictable;
  request.looked_up = clock_.launched();
  request.lacking = needed;
  return needed <= available && groups_fit(request) ? Admission::kFits : Admission::kBlocked;
}

// Further groups promise nothing: their pages come and go while a prefill runs, and the youngest
// gives way when they run out. But nobody is admitted into a shortage.
bool Scheduler::groups_fit(const Request& request) const {
  const auto others = static_cast<std::int32_t>(running_.size());
  for (std::size_t i = 0; i < config_.cache_groups.size() && others > 0; ++i) {
    const std::int32_t whole = pages_for(request.length(), config_.page_size);
    const std::int32_t least = config_.cache_groups[i].least_pages(config_.page_size);
    if (pools_[i + 1].available() - others < std::min(whole, least)) return false;
  }
  return true;
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
  match_in_groups(seat);
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
  request.lacking = 0;
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
  seat->loaded.first_column = match_.on_device;
  for (const BlockId block : in_host) seat->loaded.expanded.push_back(cache_.expanded(block));
  take_pages_to_load(match_.pages(), *seat, load);
  const TransferId transfer = transfers_.begin(std::move(load));
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
  const std::int32_t cached = match_.on_device * config_.page_size;
  const std::int32_t received = std::max(cached, waiting.request().length() - 1);
  Load load{waiting.request().id, id, {}, {}};
  take_pages_to_load(pages_for(received, config_.page_size), *seat, load);
  const TransferId transfer = transfers_.begin(std::move(load));
  slot(id) = InFlight<Receiving, TransferToken>(
      Lifecycle::receive(std::move(waiting), std::move(seat), cached, received), transfer);
  note_computing(*sequence_in(id));
}

// What the found prefix has in further groups, as far as computing behind it reads.
void Scheduler::match_in_groups(Seat& seat) {
  for (std::size_t i = 0; i < config_.cache_groups.size(); ++i) {
    const CacheGroup& group = config_.cache_groups[i];
    GroupPages& pages = seat->groups.emplace_back(group, config_.page_size);
    const std::int32_t position = match_.pages() * config_.page_size;
    const std::int32_t first = group.first_column(position, config_.page_size);
    for (std::int32_t column = first; column < match_.pages(); ++column) {
      const BlockId block = match_.blocks[static_cast<std::size_t>(column)];
      pages.match(column, cache_.acquire(i + 1, block));
    }
  }
}

// The first chunk, with a page to begin with in each further group.
void Scheduler::begin_prefill(SlotId id) {
  while (PagePool* pool = lacking(id)) {
    if (pool->available() == 0) return;
    give_spare(*pool, *running_in(id));
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
