// SPDX-License-Identifier: MIT
// What happens before what, whatever the order in which this run did it: every agent has a vector
// clock, and synchronisation joins them (Flanagan and Freund, "FastTrack", 2009).
//
// Agents are warps and operations that go on by themselves. Knowledge of an access is what an agent
// has synchronised with; `fenced` is the part that it may also rely on across proxies, which a
// proxy fence makes of the rest (PTX ISA 8.7 "memory consistency model", proxies).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "elsewhere.h"

namespace gpusim {

using Clock = std::uint32_t;

// A moment of an agent, which stands in a slot of every vector clock.
struct Epoch {
  std::uint32_t slot = 0;
  Clock clock = 0;  // 0: never
};

// How often knowledge has changed, anyone's: what was found before holds until then.
extern constinit thread_local std::uint64_t lessons;

class VectorClock {
 public:
  [[nodiscard]] Clock at(std::uint32_t slot) const {
    return slot < clocks_.size() ? clocks_[slot] : 0;
  }
  [[nodiscard]] bool covers(Epoch epoch) const { return at(epoch.slot) >= epoch.clock; }
  [[nodiscard]] bool covers(const VectorClock& other) const {
    for (std::uint32_t slot = 0; slot < other.clocks_.size(); ++slot) {
      if (at(slot) < other.clocks_[slot]) return false;
    }
    return true;
  }
  void set(Epoch epoch) {
    ++lessons;
    if (epoch.slot >= clocks_.size()) clocks_.resize(epoch.slot + 1, 0);
    clocks_[epoch.slot] = std::max(clocks_[epoch.slot], epoch.clock);
  }
  // Knows nothing; the memory stays.
  void clear() {
    ++lessons;
    clocks_.clear();
  }
  void join(const VectorClock& other) {
    ++lessons;
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
  VectorClock fenced;         // as far as shared and tensor memory are concerned
  VectorClock fenced_global;  // as far as global memory is
  Elsewhere elsewhere;        // what is known of other clusters
  Moment reached;

  void join(const Knowledge& other) {
    all.join(other.all);
    fenced.join(other.fenced);
    fenced_global.join(other.fenced_global);
    elsewhere.join(other.elsewhere);
    reach(other.reached);
  }
  void reach(const Moment& moment) {
    if (moment.cycle > reached.cycle) reached = moment;
  }
  void fence() { fenced.join(all); }
  void fence_global() {
    fenced_global.join(all);
    elsewhere.fence();
  }
  void clear() {
    all.clear();
    fenced.clear();
    fenced_global.clear();
    elsewhere = {};
  }
  [[nodiscard]] bool covers(const Knowledge& other) const {
    return all.covers(other.all) && fenced.covers(other.fenced) &&
           fenced_global.covers(other.fenced_global);
  }
};

// The latest of all agents of the launch.
extern constinit thread_local Clock latest;

// Instructions at which an agent has last synchronised, the newest first: a finding's history.
class Recent {
 public:
  void add(std::uint32_t pc) {
    if (count_ > 0 && at_[0] == pc) return;
    std::copy_backward(at_.begin(), at_.end() - 1, at_.end());
    at_[0] = pc;
    count_ = std::min(count_ + 1, at_.size());
  }
  [[nodiscard]] auto begin() const { return at_.begin(); }
  [[nodiscard]] auto end() const { return at_.begin() + static_cast<std::ptrdiff_t>(count_); }

 private:
  std::array<std::uint32_t, 3> at_{};
  std::size_t count_ = 0;
};

enum class Proxy : std::uint8_t { kGeneric, kAsync };

struct CtaRecord;

// Who acts, at which instruction.
struct Agent {
  Epoch now;
  Knowledge knows;
  Recent recent;
  Proxy proxy = Proxy::kGeneric;
  std::uint32_t pc = 0;   // of the instruction, or of that which began the operation
  std::uint32_t cta = 0;  // rank in the cluster
  std::uint32_t cluster = 0;
  std::int32_t warp = 0;
  bool by_itself = false;       // an operation that the warp began
  bool strong = false;          // its accesses do not race with others that are
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
extern constinit thread_local Agent* acting;

// Two accesses of which neither happens before the other.
struct Race {
  const char* memory;  // which: shared, tensor, global; or a barrier, of whose phases this is
  std::uint64_t offset;
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
  std::uint32_t cluster = 0;
  std::uint32_t earlier_cluster = 0;
  std::int32_t lane = -1;  // of two lanes of one warp; else -1
  std::int32_t earlier_lane = -1;
  std::string why = {};           // what would have ordered them, if that is known
  const char* earlier = nullptr;  // what the earlier one was, at a barrier
};

// The races of a launch, one for each pair of instructions. The launch goes on.
class Races {
 public:
  struct Found {
    Race first;
    std::uint64_t times;
    Recent recent;  // of the agent that was later
  };
  void add(const Race& race) {
    const bool of_lanes = race.lane >= 0;
    const auto [at, _] =
        found_.try_emplace({race.earlier_pc, race.pc, of_lanes},
                           Found{race, 0, acting == nullptr ? Recent() : acting->recent});
    Found& found = at->second;
    ++found.times;
  }
  [[nodiscard]] const auto& found() const { return found_; }

 private:
  std::map<std::tuple<std::uint32_t, std::uint32_t, bool>, Found> found_;
};

extern constinit thread_local Races* races;

// Remembers the last accesses of each 4 bytes of a memory: a word of 16 bytes has the numbers of
// its last writer's access and of up to three readers'; who that was stands once, by number.
class AccessHistory {
 public:
  // `memory`: its name in races.
  AccessHistory(const char* memory, std::size_t bytes);

  // What was accessed until now is another memory's history.
  void forget();

  // The agent that acts reads; a race, if a write that does not happen before is among the last.
  void read(std::uint32_t offset, std::uint32_t bytes) { access<false>(offset, bytes); }
  // The same for a write or a read.
  void write(std::uint32_t offset, std::uint32_t bytes) { access<true>(offset, bytes); }

 private:
  struct Access {
    Clock clock = 0;
    std::uint32_t pc = 0;
    std::uint32_t slot = 0;
    std::uint16_t cta = 0;
    std::int16_t warp = 0;
    bool by_itself = false;
    bool strong = false;
    bool fenced = false;  // no proxy fence concerns it: it was not made through the generic proxy

    bool operator==(const Access&) const = default;
    [[nodiscard]] Epoch epoch() const { return {.slot = slot, .clock = clock}; }
    [[nodiscard]] bool same_moment(const Access& other) const {
      return slot == other.slot && clock == other.clock;
    }
  };
  // An access's number, and the bytes of the word that it touched, a bit each.
  using Mark = std::uint32_t;
  static constexpr unsigned kNumberShift = 4;
  static constexpr Mark kAllBytes = 15;
  static constexpr std::uint32_t kMostNumbers = 1U << (32 - kNumberShift);

  static constexpr std::size_t kReaders = 3;
  struct alignas(16) Word {
    Mark writer;
    Mark readers[kReaders];
  };
  // What a word became when it was accessed without a race.
  struct Outcome {
    Word before{};
    Word after{};
    std::uint64_t lessons = 0;
    Mark mark = 0;
    bool wrote = false;
  };

  template <bool kWrites>
  void access(std::uint32_t offset, std::uint32_t bytes);
  template <bool kWrites>
  void touch(std::uint32_t first, std::uint32_t last, Mark mark);
  [[nodiscard]] bool update_read(Word& word, Mark mark, std::uint32_t at) const;
  [[nodiscard]] bool update_written(Word& word, Mark mark, std::uint32_t at) const;
  // Race?
  [[nodiscard]] bool compare(Mark earlier, Mark now, bool earlier_wrote, bool writes,
                             std::uint32_t word) const;
  [[nodiscard]] bool forgotten(Mark mark) const { return mark >> kNumberShift < first_; }
  [[nodiscard]] const Access& access_of(Mark mark) const {
    return accesses_[(mark >> kNumberShift) - first_];
  }
  [[nodiscard]] Mark with_bytes_before(Mark earlier, Mark now) const;
  [[nodiscard]] std::uint32_t number_of(const Agent& agent);
  void drop_what_no_word_names();
  void start_over();

  const char* memory_;
  std::uint32_t first_ = 1;  // number of accesses_[0]; those before are forgotten
  std::vector<Access> accesses_;
  std::size_t most_accesses_;
  std::array<Outcome, 16> outcomes_;
  std::uint32_t begin_ = ~std::uint32_t{0};  // words outside [begin_, end_) were never accessed
  std::uint32_t end_ = 0;
  struct Free {
    void operator()(Word* words) const { std::free(words); }
  };
  std::unique_ptr<Word[], Free> words_;  // zero, and not resident before they are used
};

}  // namespace gpusim
