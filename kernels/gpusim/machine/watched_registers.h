// SPDX-License-Identifier: MIT
// Registers that decoding found to be used too early on some way through the kernel: before
// anything has written them, or while an asynchronous instruction still may
// (decode/register_flow.py). What really happens to them is kept track of; all others cost nothing.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "happens_before.h"
#include "program.h"

namespace gpusim {

class Warp;
struct Machine;

struct WatchedRegister {
  Mask written = 0;        // lanes in which something has written it
  bool unfenced = false;   // written, and no wgmma.fence since
  std::uint64_t load = 0;  // the tcgen05.ld that fills it; 0: none
  std::uint32_t load_pc = 0;
  std::uint64_t wgmma_group = 0;  // the group of the wgmma that uses it; 0: none
  std::uint32_t wgmma_pc = 0;
  bool accumulates = false;  // that wgmma writes it; else it reads it
};

// The tcgen05.ld of a warp, numbered from 1, and those that it has waited for.
struct TensorLoads {
  std::uint64_t issued = 0;
  std::uint64_t waited = 0;
};

// The wgmmas of a warp in the groups that it commits, numbered from 1 (PTX ISA 9.7.15.7).
class WgmmaGroups {
 public:
  [[nodiscard]] std::uint64_t open() const { return open_; }
  [[nodiscard]] std::uint64_t waited() const { return open_ - 1 - committed_.size(); }
  // `reads_until`: of the agent that reads shared memory for them; `complete`: in model time.
  void commit(Epoch reads_until, Moment complete) {
    committed_.push_back({reads_until, complete});
    ++open_;
  }
  // All but the newest `allowed` are complete; the agent that acts knows of them.
  void wait(std::size_t allowed) {
    for (; committed_.size() > allowed; committed_.pop_front()) {
      acting->knows.all.set(committed_.front().reads_until);
      acting->knows.reach(committed_.front().complete);
    }
  }

  bool fenced = false;  // there was a wgmma.fence

 private:
  std::uint64_t open_ = 1;
  struct Group {
    Epoch reads_until;
    Moment complete;
  };
  std::deque<Group> committed_;
};

// Before the warp's threads `mask` execute `op`, which uses watched registers.
void use_registers(Machine& machine, Warp& warp, const Op& op, Mask mask);

}  // namespace gpusim
