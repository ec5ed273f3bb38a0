// SPDX-License-Identifier: MIT
// Is an arrival counted in the phase that it is meant for, and does a wait see the phase that it is
// meant for, whatever the order of a run? They are, if the phases of a barrier happen one before
// the other: whoever arrives knows the arrivals of the phase before, whoever waits for a phase
// knows those of the phase before that, and a phase ends only after the waits for the one before.
#pragma once

#include <cstdint>

#include "acts.h"

namespace gpusim {

class Phases {
 public:
  // `barrier`: what it is called in findings.
  explicit Phases(const char* barrier) : barrier_(barrier) {}

  // The agent that acts arrives.
  void arrive(std::uint32_t offset);
  // It waits, and the phase has ended.
  void pass(std::uint32_t offset);
  // The phase ends by the arrival of the agent that acts; `told` is what all have told.
  void end(std::uint32_t offset, const Knowledge& told);

 private:
  void report(std::uint32_t offset, const Act& earlier, const char* what) const;

  const char* barrier_;
  Acts arrivals_;           // of this phase
  Acts arrivals_before_;    // of the last one
  Acts arrivals_long_ago_;  // of the one before that
  Acts waits_;              // for the last phase
};

}  // namespace gpusim
