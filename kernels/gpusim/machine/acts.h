// SPDX-License-Identifier: MIT
// What agents did last, of what others have to come after.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "happens_before.h"

namespace gpusim {

// Of an agent, when it did something.
struct Act {
  Epoch epoch;
  std::uint32_t pc = 0;
  std::uint32_t cta = 0;
  std::int32_t warp = 0;
  bool by_itself = false;

  [[nodiscard]] static Act of(const Agent& agent) {
    return {.epoch = agent.now,
            .pc = agent.pc,
            .cta = agent.cta,
            .warp = agent.warp,
            .by_itself = agent.by_itself};
  }
};

// The last one of each agent.
class Acts {
 public:
  void add(const Agent& agent) {
    const auto found = std::ranges::find_if(
        acts_, [&agent](const Act& other) { return other.epoch.slot == agent.now.slot; });
    if (found == acts_.end()) {
      acts_.push_back(Act::of(agent));
    } else {
      *found = Act::of(agent);
    }
  }
  void clear() { acts_.clear(); }
  [[nodiscard]] auto begin() const { return acts_.begin(); }
  [[nodiscard]] auto end() const { return acts_.end(); }
  // The first that is not known; null: all are.
  [[nodiscard]] const Act* unknown_to(const Knowledge& knows) const {
    const auto found = std::ranges::find_if(
        acts_, [&knows](const Act& act) { return !knows.all.covers(act.epoch); });
    return found == acts_.end() ? nullptr : &*found;
  }

 private:
  std::vector<Act> acts_;
};

// A race of two acts; `about`, `what`: what the sentence says of them.
inline void report(const Act& now, const Act& earlier, const char* about, std::uint32_t offset,
                   const char* what) {
  races->add({.memory = about,
              .offset = offset,
              .pc = now.pc,
              .cta = now.cta,
              .warp = now.warp,
              .by_itself = now.by_itself,
              .earlier_pc = earlier.pc,
              .earlier_cta = earlier.cta,
              .earlier_warp = earlier.warp,
              .earlier_by_itself = earlier.by_itself,
              .earlier_wrote = false,
              .writes = false,
              .unfenced = false,
              .earlier = what});
}

}  // namespace gpusim
