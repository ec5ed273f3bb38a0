// SPDX-License-Identifier: MIT
#include "phases.h"

#include <utility>

#include "edges.h"

namespace gpusim {

void Phases::arrive(std::uint32_t offset) {
  if (const Act* earlier = arrivals_before_.unknown_to(acting->knows)) {
    report(offset, *earlier, "an arrival of the phase before");
  }
  if (edges != nullptr) {
    for (const Act& other : arrivals_) edges->meet(other.pc);
  }
  arrivals_.add(*acting);
}

void Phases::pass(std::uint32_t offset) {
  if (const Act* earlier = arrivals_long_ago_.unknown_to(acting->knows)) {
    report(offset, *earlier, "an arrival of the phase before the last");
  }
  waits_.add(*acting);
}

void Phases::end(std::uint32_t offset, const Knowledge& told) {
  if (const Act* earlier = waits_.unknown_to(told)) {
    report(offset, *earlier, "a wait for the phase before");
  }
  arrivals_long_ago_ = std::exchange(arrivals_before_, std::exchange(arrivals_, {}));
  waits_.clear();
}

void Phases::report(std::uint32_t offset, const Act& earlier, const char* what) const {
  gpusim::report(Act::of(*acting), earlier, barrier_, offset, what);
}

}  // namespace gpusim
