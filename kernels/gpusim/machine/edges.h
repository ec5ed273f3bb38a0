// SPDX-License-Identifier: MIT
// What each synchronising instruction is good for. Whoever acquires or releases knowledge does so
// here, so that a launch may be observed: how often an instruction was executed, and how often
// something was learned by it. One instruction can be muted: it waits and counts as ever, so the
// run is the same, but orders nothing. Races are then those of accesses that only it has ordered.
#pragma once

#include <cstdint>
#include <map>

#include "happens_before.h"

namespace gpusim {

class Edges {
 public:
  static constexpr std::int64_t kNone = -1;

  // `muted`: an instruction, or kNone.
  explicit Edges(std::int64_t muted) : muted_(muted) {}

  struct Uses {
    std::uint64_t released = 0;
    std::uint64_t acquired = 0;  // a fence between proxies acquires, too
    std::uint64_t taught = 0;    // times that the agent did not know all that it acquired
    std::uint64_t repaid = 0;    // times that what the muted one withheld was acquired here
    bool alone = true;           // those that meet at a barrier all execute this instruction
  };

  void acquire(const Knowledge& told);
  void release(Knowledge& to);
  void fence(bool shared, bool global);
  // In the phase of a barrier in which the agent that acts arrives, another has at `pc`.
  void meet(std::uint32_t pc) {
    if (pc != acting->pc) uses_[pc].alone = uses_[acting->pc].alone = false;
  }
  [[nodiscard]] const std::map<std::uint32_t, Uses>& uses() const { return uses_; }
  // Agents that never learned what the muted instruction withheld.
  [[nodiscard]] std::uint64_t unpaid() const { return owed_.size(); }

 private:
  [[nodiscard]] bool mutes() const { return acting->pc == muted_; }

  std::int64_t muted_;
  std::map<std::uint32_t, Uses> uses_;       // by instruction
  std::map<std::uint32_t, Knowledge> owed_;  // by the agent's slot
};

// Of the launch that this thread executes, if it is observed.
extern thread_local Edges* edges;

// The agent that acts learns what others have told.
inline void acquire(const Knowledge& told) {
  acting->recent.add(acting->pc);
  if (edges != nullptr) return edges->acquire(told);
  acting->knows.join(told);
}

// The agent that acts tells what it knows.
inline void release(Knowledge& to) {
  if (edges != nullptr) return edges->release(to);
  to.join(acting->knows);
}

// What the agent that acts has synchronised with is ordered for the other proxy, too, in shared or
// in global memory.
inline void fence_proxies(bool shared, bool global) {
  if (edges != nullptr) return edges->fence(shared, global);
  if (shared) acting->knows.fence();
  if (global) acting->knows.fence_global();
}

}  // namespace gpusim
