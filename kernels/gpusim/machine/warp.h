// SPDX-License-Identifier: MIT
// A warp: 32 threads with their registers. Threads that took different ways are fragments, each
// with a program counter of its own; fragments that meet become one.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "edges.h"
#include "happens_before.h"
#include "lane_order.h"
#include "polls.h"
#include "program.h"
#include "register_file.h"
#include "release_acquire.h"
#include "watched_registers.h"

namespace gpusim {

class Cta;
struct Machine;

// What threads wait for, in words when someone asks.
class Awaited {
 public:
  Awaited() = default;
  template <class Describe>
  Awaited& operator=(Describe describe) {
    if constexpr (std::is_invocable_r_v<std::string, Describe>) {
      describe_ = std::move(describe);
    } else {
      describe_ = [text = std::move(describe)] { return std::string(text); };
    }
    return *this;
  }
  [[nodiscard]] std::string text() const { return describe_ ? describe_() : std::string(); }

 private:
  std::function<std::string()> describe_;
};

struct Fragment {
  std::uint32_t pc = 0;
  Mask mask = 0;
  std::uint64_t seen = 0;     // events of the cluster when it last had to wait; 0: it does not wait
  bool may_time_out = false;  // it waits in a try_wait
  bool out_of_time = false;   // the try_wait has waited long enough
  bool arrived = false;       // at the barrier that it waits for
  bool converges = false;     // it waits for other threads of its warp
  std::uint64_t phase = 0;    // of that barrier when it arrived
  Awaited waits_for = {};
  Polls polls = {};
};

// Copies that are waited for together: how many are under way, and what those that are complete
// tell whoever waits for them.
class Copies {
 public:
  void operator++() { ++under_way_; }
  // The agent that acts has read its source; what it does from here on is told with the rest.
  void has_read() {
    read_.join(acting->knows);
    acting->tick();
  }
  // The agent that acts has completed one.
  void operator--() {
    --under_way_;
    done_.join(acting->knows);
  }
  bool operator==(int number) const { return under_way_ == number; }
  [[nodiscard]] const Knowledge& read() const { return read_; }
  [[nodiscard]] const Knowledge& done() const { return done_; }

 private:
  int under_way_ = 0;
  Knowledge read_;
  Knowledge done_;
};

// The asynchronous copies of one thread, in the groups that it commits.
class AsyncGroups {
 public:
  using Counter = std::shared_ptr<Copies>;

  [[nodiscard]] Counter begin() {
    if (open_.empty()) open_.push_back(std::make_shared<Copies>());
    ++*open_.back();
    return open_.back();
  }
  void commit() { committed_.push_back(std::exchange(open_, {})); }
  // Is one under way that is not among the newest `allowed` groups? With `open` also those that are
  // not committed count. If none is, the agent that acts knows of them from here on.
  [[nodiscard]] bool under_way(std::size_t allowed, bool open) {
    const std::size_t groups = committed_.size() - std::min(allowed, committed_.size());
    bool busy = open && std::ranges::any_of(open_, is_busy);
    for (std::size_t i = 0; i < groups; ++i) busy |= std::ranges::any_of(committed_[i], is_busy);
    if (busy) return true;
    for (std::size_t i = 0; i < groups; ++i) acquire(committed_[i]);
    if (open) acquire(open_);
    acting->knows.join(read_before_);
    read_before_ = {};
    committed_.erase(committed_.begin(), committed_.begin() + static_cast<std::ptrdiff_t>(groups));
    return false;
  }
  // The same for the sources of those groups only.
  [[nodiscard]] bool reading(std::size_t allowed) {
    const std::size_t groups = committed_.size() - std::min(allowed, committed_.size());
    for (std::size_t i = 0; i < groups; ++i) {
      if (std::ranges::any_of(committed_[i], is_busy)) return true;
    }
    for (std::size_t i = 0; i < groups; ++i) {
      for (const Counter& copies : committed_[i]) {
        acting->knows.join(copies->read());
        read_before_.join(copies->done());
      }
    }
    committed_.erase(committed_.begin(), committed_.begin() + static_cast<std::ptrdiff_t>(groups));
    return false;
  }
  // All that is under way now; what begins later has a counter of its own.
  [[nodiscard]] std::vector<Counter> so_far() {
    std::vector<Counter> all;
    for (const Group& group : committed_) all.insert(all.end(), group.begin(), group.end());
    all.insert(all.end(), open_.begin(), open_.end());
    open_.push_back(std::make_shared<Copies>());
    return all;
  }

 private:
  using Group = std::vector<Counter>;
  static bool is_busy(const Counter& copies) { return !(*copies == 0); }
  static void acquire(const Group& group) {
    for (const Counter& copies : group) gpusim::acquire(copies->done());
  }

  Group open_;
  std::vector<Group> committed_;
  Knowledge read_before_;  // what groups tell of which only the sources were waited for
};

class Warp {
 public:
  Warp(Machine& machine, Cta& cta, Misunderstandings& missed, int id, Mask threads,
       RegisterFile& registers, std::size_t watched_registers)
      : order(missed),
        watched(watched_registers),
        machine_(machine),
        cta_(cta),
        id_(id),
        registers_(registers) {
    fragments.push_back({.mask = threads});
  }
  Warp(const Warp&) = delete;
  Warp& operator=(const Warp&) = delete;

  [[nodiscard]] Machine& machine() { return machine_; }
  [[nodiscard]] Cta& cta() { return cta_; }
  [[nodiscard]] int id() const { return id_; }
  [[nodiscard]] RegisterFile& registers() { return registers_; }
  [[nodiscard]] Mask live() const {
    Mask all = 0;
    for (const Fragment& fragment : fragments) all |= fragment.mask;
    return all;
  }
  template <class T>
  [[nodiscard]] T* place(std::int32_t at) {
    return registers_.place<T>(at);
  }

  std::vector<Fragment> fragments;  // by program counter
  std::uint64_t apart = 0;          // steps since fragments last met or parted
  std::size_t fragments_before = 1;
  Agent agent;
  Correspondence order;  // of its strong accesses
  LaneOrder lanes;       // of the accesses of its lanes
  Agent load_agent;      // its tcgen05.ld, or the reads of its warpgroup's wgmma, until it waits
  Agent store_agent;     // its tcgen05.st
  Knowledge released;    // what it knew at its last fence
  TensorLoads tensor_loads;
  WgmmaGroups wgmmas;
  std::vector<WatchedRegister> watched;
  std::array<std::uint64_t, kLanes>
      cluster_phase{};                     // when a thread arrived at the cluster's barrier
  std::array<AsyncGroups, kLanes> copies;  // cp.async
  std::array<AsyncGroups, kLanes> bulks;   // cp.async.bulk
  struct Return {
    std::uint32_t pc;
    std::uint32_t frame_bytes;  // of the caller's frame in local memory
  };
  std::array<std::vector<Return>, kLanes> returns;   // of the functions that a thread is in
  std::array<std::vector<std::byte>, kLanes> saved;  // registers of callers that are called again
  std::uint32_t most_registers = 0;  // of a thread, as setmaxnreg has it; 0: as at the start
  std::int32_t frame_at = -1;        // place of the frame's address

 private:
  Machine& machine_;
  Cta& cta_;
  int id_;
  RegisterFile& registers_;
};

// One instruction, executed by some threads of a warp.
struct Step {
  Warp& warp;
  Fragment& fragment;
  const Op& op;
  const Operand* operands;
  Mask mask;

  template <class T>
  [[nodiscard]] T* reg(int operand) {
    return warp.place<T>(operands[operand].at);
  }
  [[nodiscard]] Mask& predicate(int operand) { return *reg<Mask>(operand); }
  [[nodiscard]] bool sink(int operand) const { return operands[operand].at < 0; }
  [[nodiscard]] std::int64_t offset(int operand) const { return operands[operand].offset; }
  // The first of the threads: that of an instruction that one thread executes.
  [[nodiscard]] int lane() const { return std::countr_zero(mask); }
  // The same value for all threads.
  template <class T>
  [[nodiscard]] T value(int operand) {
    return reg<T>(operand)[lane()];
  }
  template <class Do>
  void each_lane(Do act) const {
    for (Mask rest = mask; rest != 0; rest &= rest - 1) act(std::countr_zero(rest));
  }
};

}  // namespace gpusim
