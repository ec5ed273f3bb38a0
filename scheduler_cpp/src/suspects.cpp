// SPDX-License-Identifier: MIT
// When no token can be sampled for a request, the KV behind it may hold a NaN, and whoever matched
// it would fail, too. A token that was sampled proves the pages before it: a NaN in one of them
// would have reached it. So a request that fails takes out of the cache what no token has proven
// yet, its own pages above all, and whatever others have put behind them.
#include <algorithm>

#include "ts/scheduler.h"

namespace ts {

// The sequence has got a token from this step: the last pages that it read become proven, up to the
// first that is.
void Scheduler::prove_pages(Sequence& sequence, StepId step) {
  SequencePages& pages = sequence.pages();
  std::int32_t column = pages.read_by(step);
  while (column > 0 && cache_.prove(pages.page(column - 1))) --column;
}

void Scheduler::withdraw_unproven_pages(const Sequence& sequence) {
  const SequencePages& pages = sequence.pages();
  std::int32_t column = 0;
  while (column < pages.shared() && cache_.proven(pages.page(column))) ++column;
  if (column == pages.shared()) return;
  for (PageLease& page : cache_.withdraw(pages.page(column))) pool_.give_back(std::move(page));
  for (const SlotId id : running_) {  // who is loading: when that has ended
    Sequence* const other = running_in(id);
    if (other != nullptr && builds_on_withdrawn(other->pages())) other->pages().never_cache();
  }
}

bool Scheduler::builds_on_withdrawn(const SequencePages& pages) const {
  return pages.shared() > 0 && cache_.withdrawn(cache_.block(*pages.last_shared()));
}

}  // namespace ts
