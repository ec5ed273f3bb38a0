// SPDX-License-Identifier: MIT
// complete_transfer(): pages have arrived in the host tier, or on the device, or have not.
#include "ts/scheduler.h"

namespace ts {

void Scheduler::complete_transfer(std::uint64_t id, bool ok) {
  const TransferToken token = transfer_clock_.end(TransferId(id));
  auto ended = transfers_.extract(TransferId(id));
  if (auto* stores = std::get_if<WriteBacks>(&ended.mapped())) {
    cache_.host().written(std::move(*stores).retire(token), ok);
    return;
  }
  const Load& load = std::get<Load>(ended.mapped());
  // The host's pages stay where they are: as the leaves go last, those of the end become older.
  for (auto block = load.blocks.rbegin(); block != load.blocks.rend(); ++block) {
    cache_.host().unpin(*block);
  }
  Slot& state = slot(load.slot);
  if (auto* draining = std::get_if<InFlight<Draining, TransferToken>>(&state)) {
    auto left = Lifecycle::drain(std::move(*draining).retire(token));
    state = std::monostate{};
    release(std::move(left.seat), clock_.retired());
    return;
  }
  loaded(load.slot, token, ok);
}

void Scheduler::loaded(SlotId id, const TransferToken& token, bool ok) {
  Slot& state = slot(id);
  Loading loading = std::get<InFlight<Loading, TransferToken>>(std::move(state)).retire(token);
  if (ok) {
    state = Lifecycle::loaded(std::move(loading));
    cache_full_pages(*running_in(id), clock_.retired());
    free_replaced(clock_.retired());  // no commit may follow
    return;
  }
  // What was counted as found is computed after all.
  Request& request = loading.request();
  if (request.length() == request.prompt_length && request.cached_tokens == loading.loaded()) {
    request.cached_tokens = loading.computed();
    totals_.prefix_hit_tokens -= loading.loaded() - loading.computed();
  }
  state = Lifecycle::failed(std::move(loading));
}

}  // namespace ts
