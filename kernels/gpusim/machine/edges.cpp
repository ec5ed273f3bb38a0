// SPDX-License-Identifier: MIT
#include "edges.h"

namespace gpusim {

thread_local Edges* edges = nullptr;

void Edges::acquire(const Knowledge& told) {
  Knowledge& knows = acting->knows;
  Uses& uses = uses_[acting->pc];
  ++uses.acquired;
  if (!knows.covers(told)) ++uses.taught;
  if (mutes()) {
    owed_[acting->now.slot].join(told);
  } else {
    knows.join(told);
  }
  const auto owed = owed_.find(acting->now.slot);
  if (owed == owed_.end() || !knows.covers(owed->second)) return;
  ++uses.repaid;
  owed_.erase(owed);
}

void Edges::release(Knowledge& to) {
  ++uses_[acting->pc].released;
  if (!mutes()) to.join(acting->knows);
}

void Edges::fence(bool shared, bool global) {
  Knowledge& knows = acting->knows;
  Uses& uses = uses_[acting->pc];
  ++uses.acquired;
  const bool teaches = (shared && !knows.fenced.covers(knows.all)) ||
                       (global && !knows.fenced_global.covers(knows.all));
  if (teaches) ++uses.taught;
  if (mutes()) return;
  if (shared) knows.fence();
  if (global) knows.fence_global();
}

}  // namespace gpusim
