// SPDX-License-Identifier: MIT
// What happens before what, whatever the order in which this run did it: every agent has a vector
// clock, and synchronisation joins them (Flanagan and Freund, "FastTrack", 2009).
//
// Agents are warps and operations that go on by themselves. Knowledge of an access is what an agent
// has synchronised with; `fenced` is the part that it may also rely on across proxies, which a
// proxy fence makes of the rest (PTX ISA 8.7 "memory consistency model", proxies).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace gpusim {

using Clock = std::uint32_t;

// A moment of an agent, which stands in a slot of every vector clock.
struct Epoch {
  std::uint32_t slot = 0;
  Clock clock = 0;  // 0: never
};

class VectorClock {
 public:
  [[nodiscard]] Clock at(std::uint32_t slot) const {
    return slot < clocks_.size() ? clocks_[slot] : 0;
  }
  [[nodiscard]] bool covers(Epoch epoch) const { return at(epoch.slot) >= epoch.clock; }
  void set(Epoch epoch) {
    if (epoch.slot >= clocks_.size()) clocks_.resize(epoch.slot + 1, 0);
    clocks_[epoch.slot] = std::max(clocks_[epoch.slot], epoch.clock);
  }
  void join(const VectorClock& other) {
    if (other.clocks_.size() > clocks_.size()) clocks_.resize(other.clocks_.size(), 0);
    for (std::size_t i = 0; i < other.clocks_.size(); ++i) {
      clocks_[i] = std::max(clocks_[i], other.clocks_[i]);
    }
  }

 private:
  std::vector<Clock> clocks_;
};

// In the time of the cost model, if the launch is recorded; and the instruction it took until then.
struct Moment {
  std::uint64_t cycle = 0;
  std::uint32_t pc = 0;
};

struct Knowledge {
  VectorClock all;
  VectorClock fenced;
  Moment reached;

  void join(const Knowledge& other) {
    all.join(other.all);
    fenced.join(other.fenced);
    if (other.reached.cycle > reached.cycle) reached = other.reached;
  }
  void fence() { fenced.join(all); }
};

// The latest of all agents of the launch.
extern thread_local Clock latest;

enum class Proxy : std::uint8_t { kGeneric, kAsync };

struct CtaRecord;

// Who acts, at which instruction.
struct Agent {
  Epoch now;
  Knowledge knows;
  Proxy proxy = Proxy::kGeneric;
  std::uint32_t pc = 0;   // of the instruction, or of that which began the operation
  std::uint32_t cta = 0;  // rank in the cluster
  std::int32_t warp = 0;
  bool by_itself = false;       // an operation that the warp began
  CtaRecord* record = nullptr;  // if the launch is recorded

  // What it does from here on is later than what it has told others.
  void tick() { become({.slot = now.slot, .clock = now.clock + 1}); }
  void become(Epoch epoch) {
    now = epoch;
    latest = std::max(latest, epoch.clock);
    knows.all.set(now);
  }
};

// The one that acts now. Memory asks, so that instructions need not say it with every access.
extern thread_local Agent* acting;

// Two accesses of which neither happens before the other.
struct Race {
  const char* memory;  // which: shared, tensor
  std::uint32_t offset;
  std::uint32_t pc;
  std::uint32_t cta;
  std::int32_t warp;
  bool by_itself;
  std::uint32_t earlier_pc;
  std::uint32_t earlier_cta;
  std::int32_t earlier_warp;
  bool earlier_by_itself;
  bool earlier_wrote;
  bool writes;
  bool unfenced;  // they are ordered, but no proxy fence lies between them
};

// The races of a launch, one for each pair of instructions. The launch goes on.
class Races {
 public:
  struct Found {
    Race first;
    std::uint64_t times;
  };
  void add(const Race& race) {
    Found& found = found_.try_emplace({race.earlier_pc, race.pc}, Found{race, 0}).first->second;
    ++found.times;
  }
  [[nodiscard]] const auto& found() const { return found_; }

 private:
  std::map<std::pair<std::uint32_t, std::uint32_t>, Found> found_;
};

extern thread_local Races* races;

// Remembers the last accesses of each 4 bytes of a memory.
class AccessHistory {
 public:
  // `memory`: its name in races.
  AccessHistory(const char* memory, std::size_t bytes);

  // What was accessed until now is another memory's history.
  void forget() { first_ = latest + 1; }

  // The agent that acts reads; a race, if a write that does not happen before is among the last.
  void read(std::uint32_t offset, std::uint32_t bytes);
  // The same for a write or a read.
  void write(std::uint32_t offset, std::uint32_t bytes);

 private:
  struct Access {
    Clock clock = 0;
    std::uint32_t pc = 0;
    std::uint16_t slot = 0;
    std::uint16_t cta = 0;
    std::int16_t warp = 0;
    std::uint8_t bytes = 0;  // of the word, a bit each
    bool by_itself : 1 = false;
    bool fenced : 1 =
        false;  // no proxy fence concerns it: it was not made through the generic proxy

    [[nodiscard]] Epoch epoch() const { return {.slot = slot, .clock = clock}; }
    [[nodiscard]] bool same_moment(const Access& other) const {
      return slot == other.slot && clock == other.clock;
    }
  };
  static constexpr std::size_t kReaders = 3;
  struct Word {
    Access writer;
    Access readers[kReaders];
  };
  static_assert(sizeof(Word) == 64);

  [[nodiscard]] static Access access_by(const Agent& agent);
  void compare(const Access& earlier, const Access& now, bool earlier_wrote, bool writes,
               std::size_t word) const;

  const char* memory_;
  Clock first_ = 1;  // accesses before are forgotten
  struct Free {
    void operator()(Word* words) const { std::free(words); }
  };
  std::unique_ptr<Word[], Free> words_;  // zero, and not resident before they are used
};

}  // namespace gpusim
