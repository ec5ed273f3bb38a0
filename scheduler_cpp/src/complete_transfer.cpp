// SPDX-License-Identifier: MIT
// complete_transfer(): pages have arrived in the host tier, or on the device, or have not.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "ts/scheduler.h"

namespace ts {

void Scheduler::complete_transfer(std::uint64_t id, bool ok) {
  if (!transfers_.is_under_way(TransferId(id))) {
    throw std::invalid_argument("transfer_id is " + std::to_string(id) +
                                ", but no transfer of that id is under way");
  }
  auto [transfer, token] = transfers_.end(TransferId(id));
  if (auto* stores = std::get_if<Stores>(&transfer)) {
    cache_.host().written(std::move(stores->pages).retire(token), ok);
    return;
  }
  if (const auto* send = std::get_if<Send>(&transfer)) {
    return release_transferred(send->slot, token);
  }
  const Load& load = std::get<Load>(transfer);
  const bool withdrawn =
      std::ranges::any_of(load.blocks, [this](BlockId block) { return cache_.withdrawn(block); });
  // The host's pages stay where they are: as the leaves go last, those of the end become older.
  for (auto block = load.blocks.rbegin(); block != load.blocks.rend(); ++block) {
    cache_.host().unpin(*block);
  }
  Slot& state = slot(load.slot);
  if (auto* loading = std::get_if<InFlight<Loading, TransferToken>>(&state)) {
    arrived(load.slot, std::move(*loading).retire(token), ok, withdrawn);
  } else if (auto* receiving = std::get_if<InFlight<Receiving, TransferToken>>(&state)) {
    arrived(load.slot, std::move(*receiving).retire(token), ok, withdrawn);
  } else {
    release_transferred(load.slot, token);
  }
}

std::vector<std::uint64_t> Scheduler::overdue_transfers(double now) {
  if (!(now >= transfers_.now()) || !std::isfinite(now)) {
    throw std::invalid_argument("now is " + std::to_string(now) + ", but it must be at least " +
                                std::to_string(transfers_.now()) +
                                ", as it was: seconds of a monotonic clock");
  }
  return transfers_.overdue(now, config_.peer_timeout);
}

// What a peer has read, or what was ended while its pages were on their way.
void Scheduler::release_transferred(SlotId id, const TransferToken& token) {
  Slot& state = slot(id);
  auto* sending = std::get_if<InFlight<Sending, TransferToken>>(&state);
  auto left =
      sending != nullptr
          ? Lifecycle::sent(std::move(*sending).retire(token))
          : Lifecycle::drain(
                std::move(std::get<InFlight<Draining, TransferToken>>(state)).retire(token));
  state = std::monostate{};
  release(std::move(left.seat), clock_.retired());
}

// `withdrawn`: some of what it has loaded was withdrawn meanwhile.
void Scheduler::arrived(SlotId id, Loading&& loading, bool ok, bool withdrawn) {
  Slot& state = slot(id);
  if ((ok && withdrawn) || builds_on_withdrawn(loading.pages())) loading.pages().never_cache();
  if (ok) {
    state = InFlight<Prefilling>(Lifecycle::loaded(std::move(loading)), kNoStep);
    cache_full_pages(*running_in(id), clock_.retired());
    free_replaced(clock_.retired());  // no commit may follow
    return;
  }
  // What was counted as found is computed after all.
  loading.loaded_pages() = {};
  Request& request = loading.request();
  if (request.counts_on_load) {
    request.cached_tokens = loading.computed();
    totals_.prefix_hit_tokens -= loading.loaded() - loading.computed();
  }
  state = InFlight<Prefilling>(Lifecycle::failed(std::move(loading)), kNoStep);
}

}  // namespace ts
