// SPDX-License-Identifier: MIT
// CTAs and the cluster that they form, with what their threads share: shared memory, mbarriers,
// barriers, tensor memory, and operations that go on by themselves.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "counters.h"
#include "edges.h"
#include "memory.h"
#include "phases.h"
#include "recorder.h"
#include "residents.h"
#include "warp.h"

namespace gpusim {

struct Dim {
  std::uint32_t x = 1, y = 1, z = 1;
  [[nodiscard]] std::uint64_t count() const { return std::uint64_t{x} * y * z; }
};

// The place of that number in a grid of that shape.
[[nodiscard]] inline Dim at_index(std::uint64_t number, const Dim& shape) {
  return {.x = static_cast<std::uint32_t>(number % shape.x),
          .y = static_cast<std::uint32_t>(number / shape.x % shape.y),
          .z = static_cast<std::uint32_t>(number / shape.x / shape.y)};
}

// PTX ISA, "mbarrier object": a phase ends when nothing is pending and no bytes are expected.
struct Mbarrier {
  std::int64_t count = 0;  // arrivals of a phase
  std::int64_t pending = 0;
  std::int64_t expected_bytes = 0;
  std::uint64_t phase = 0;
  Knowledge arriving;   // of those that have arrived in this phase
  Knowledge completed;  // of those of the phases before: what a wait acquires
  Phases phases{"mbarrier"};
  Act init;
  bool fenced = false;  // other CTAs and the asynchronous proxy see the initialisation
};

// A named barrier of a CTA (bar, barrier.cta), or the barrier of a cluster.
struct Barrier {
  std::uint32_t arrived = 0;  // threads
  std::uint32_t expected = 0;
  std::uint64_t phase = 0;
  std::uint32_t voted = 0;  // threads that arrived with a predicate (bar.red), and true ones
  std::uint32_t in_favour = 0;
  std::uint32_t result_voted = 0;  // of the phase before
  std::uint32_t result_in_favour = 0;
  Knowledge arriving;
  Knowledge completed;
  Phases phases{"barrier"};

  // The agent that acts arrives, and tells what it knows.
  void tell(std::uint32_t number) {
    phases.arrive(number);
    release(arriving);
    acting->tick();
  }
  void complete(std::uint32_t number) {
    phases.end(number, arriving);
    arrived = 0;
    ++phase;
    result_voted = std::exchange(voted, 0);
    result_in_favour = std::exchange(in_favour, 0);
    completed.join(arriving);
    arriving.clear();
  }
};

class Cluster;

inline constexpr int kTmemLanes = 128;
inline constexpr int kTmemColumns = 512;

// Tensor memory of a CTA: 128 lanes of 512 columns of 32 bits.
class TensorMemory {
 public:
  TensorMemory();
  // As new, for another CTA.
  void renew();
  // The first of `columns` free columns, or -1.
  [[nodiscard]] int allocate(int columns);
  void release(int column, int columns);
  // Fault unless the columns are allocated.
  void demand(int column, int columns) const;
  // The agent that acts reads or writes columns of so many quarters of the lanes.
  void reads(int quarter, int quarters, int column, int columns);
  void writes(int quarter, int quarters, int column, int columns);
  // Columns of a lane are written, or are read: then whether all of them were ever written.
  void mark_written(int lane, int column, int columns);
  [[nodiscard]] bool is_written(int lane, int column, int columns) const;
  [[nodiscard]] std::uint32_t* lane(int lane) {
    return words_.data() + (static_cast<std::size_t>(lane) * kTmemColumns);
  }
  [[nodiscard]] int allocated() const;

  bool relinquished = false;
  Knowledge freed;  // of those that have freed columns: who allocates comes later

 private:
  std::vector<std::uint32_t> words_;
  std::vector<std::uint8_t> written_;      // a flag for each word
  std::bitset<kTmemColumns> changed_;      // columns that may not be as new
  AccessHistory history_;                  // of 4 bytes for each column of a quarter of the lanes
  std::array<int, kTmemColumns> owner_{};  // first column of the allocation, plus one; 0: free
};

// What a CTA leaves to one that comes later.
struct CtaMemory {
  explicit CtaMemory(std::size_t shared_bytes) : shared(shared_bytes) {}
  SharedMemory shared;
  TensorMemory tmem;
  std::vector<std::unique_ptr<RegisterFile>> registers;  // of its warps
};

// Four warps that execute wgmma together. The last to come does it for all.
struct Warpgroup {
  std::uint32_t arrived = 0;  // warps, a bit each
  std::uint32_t pc = 0;       // of the wgmma
  std::uint64_t phase = 0;
};

class Findings;

class Cta {
 public:
  Cta(Cluster& cluster, std::uint32_t rank, Dim index, CtaMemory& memory)
      : shared(memory.shared), tmem(memory.tmem), cluster_(cluster), rank_(rank), index_(index) {
    shared.owner = rank;
  }

  [[nodiscard]] Cluster& cluster() { return cluster_; }
  [[nodiscard]] std::uint32_t rank() const { return rank_; }
  [[nodiscard]] const Dim& index() const { return index_; }
  // All its warps have ended: what others and copies did in its memory has to have happened before,
  // and its mbarriers expect no bytes.
  void end(Findings& findings) const;

  SharedMemory& shared;
  TensorMemory& tmem;
  std::map<std::uint32_t, Mbarrier> mbarriers;  // by offset
  std::array<Barrier, 16> barriers;
  std::array<Warpgroup, 8> warpgroups;
  std::int64_t free_registers = 0;  // that setmaxnreg.dec has released
  Misunderstandings missed;
  std::vector<std::unique_ptr<Warp>> warps;

 private:
  Cluster& cluster_;
  std::uint32_t rank_;
  Dim index_;
};

// Operations under way. Those of one queue complete in order, those without a queue in any. Each is
// an agent that knows what the one that began it knew then; a queue is one agent.
class Asynchronous {
 public:
  using Complete = std::function<void()>;

  // Slots of vector clocks from `first` on are those of operations.
  explicit Asynchronous(std::uint32_t first) : first_slot_(first) {}

  // The agent that acts begins an operation.
  void push(const EngineWork& work, Complete complete, Proxy proxy = Proxy::kAsync);
  void push(std::uint32_t queue, const EngineWork& work, Complete complete);
  [[nodiscard]] bool empty() const;
  // Completes one, chosen by chance.
  void complete_one(std::mt19937_64& chance);
  // Of a recorded launch: completes the one that is complete first in model time; and when that is.
  void complete_first();
  [[nodiscard]] Cycle first_completion() const { return first().end; }

 private:
  struct Operation {
    Complete complete;
    Agent agent;
    Cycle end = 0;             // in model time
    std::uint64_t number = 0;  // in the order in which they begin
    bool waits = false;        // for others
  };
  struct Queue {
    std::deque<Operation> operations;
    Agent agent;
  };
  // So many operations without a queue are told apart; older ones share a slot with newer ones.
  static constexpr std::uint32_t kSlots = 64;
  static constexpr std::uint32_t kMostQueues = 16;

  [[nodiscard]] Operation begin(const EngineWork& work, Complete complete, Proxy proxy);
  struct First {
    bool queued = false;
    std::size_t which = 0;  // of those without a queue; or the queue
    Cycle end = ~Cycle{0};  // none
    std::uint64_t number = ~std::uint64_t{0};
  };
  [[nodiscard]] First first() const;
  [[nodiscard]] Cycle first_of_engines() const;
  void complete_free(std::size_t which);
  void complete_queued(std::uint32_t number, Queue& queue);

  std::uint32_t first_slot_;
  std::uint32_t next_ = 0;
  std::uint64_t begun_ = 0;
  Clock start_ = latest;
  std::vector<Clock> clocks_ = std::vector<Clock>(kSlots, start_);
  std::vector<Operation> free_;
  std::map<std::uint32_t, Queue> queues_;
  Agent last_;  // of the operation without a queue that completed last
};

class Cluster {
 public:
  // `warps`: of all CTAs together.
  Cluster(Dim shape, std::uint32_t warps) : asynchronous(warps), shape_(shape) {}

  [[nodiscard]] const Dim& shape() const { return shape_; }
  // Something has happened that a waiting thread may wait for.
  void happened() { ++events_; }
  [[nodiscard]] std::uint64_t events() const { return events_; }

  struct Place {
    Cta* cta;
    std::uint32_t offset;
  };
  // Of a shared::cluster address.
  [[nodiscard]] Place place(std::uint64_t address);
  [[nodiscard]] std::byte* memory(std::uint64_t address) {
    const Place at = place(address);
    return at.cta->shared.at(at.offset, 1, 1);
  }
  [[nodiscard]] const Mbarrier& mbarrier_at(std::uint64_t address);
  // The same for an operation of the agent that acts.
  [[nodiscard]] Mbarrier& mbarrier(std::uint64_t address);
  void arrive(std::uint64_t address, std::int64_t count, std::int64_t expected_bytes);

  std::vector<std::unique_ptr<Cta>> ctas;
  Barrier barrier;
  Asynchronous asynchronous;
  Dim index;               // in the grid of clusters
  bool may_cancel = true;  // no clusterlaunchcontrol.try_cancel has failed yet
  std::uint32_t slot = 0;  // of the device, while it is resident

 private:
  Dim shape_;
  std::uint64_t events_ = 1;
};

struct LaunchShape {
  Dim grid, block, cluster;
  std::size_t dynamic_shared_bytes = 0;
  std::uint64_t resident = 0;  // CTAs that the device holds at a time; 0: all
};

[[nodiscard]] inline Dim grid_of_clusters(const LaunchShape& shape) {
  return {.x = shape.grid.x / shape.cluster.x,
          .y = shape.grid.y / shape.cluster.y,
          .z = shape.grid.z / shape.cluster.z};
}

[[nodiscard]] std::vector<std::string> texts_of(const Program& program, const Recent& recent);

// What a kernel does wrong and a launch goes on from, but for races: once for an instruction and
// what it is about.
class Findings {
 public:
  template <class Sentence>
  void add(const std::string& kind, std::uint32_t pc, const std::string& about, Sentence sentence) {
    const auto [found, is_new] = found_.try_emplace({kind, pc, about});
    if (is_new) found->second = {sentence(), 0, acting == nullptr ? Recent() : acting->recent};
    ++found->second.times;
  }
  [[nodiscard]] std::vector<Finding> all(const Program& program) const {
    std::vector<Finding> all;
    for (const auto& [key, found] : found_) {
      const std::string& kind = std::get<0>(key);
      all.push_back({kind, found.sentence, found.times, texts_of(program, found.recent)});
    }
    return all;
  }

 private:
  struct Found {
    std::string sentence;
    std::uint64_t times;
    Recent recent;
  };
  std::map<std::tuple<std::string, std::uint32_t, std::string>, Found> found_;
};

// That the agent that acts reads words of a lane of tensor memory which nothing has written.
void report_unwritten(Findings& findings, const Program& program, int lane, int column,
                      int columns);
// Where a warp's threads are: its instruction, CTA, warp, lanes.
[[nodiscard]] std::string whereabouts(Warp& warp, Mask mask);

struct Machine {
  const Program& program;
  const LaunchShape& shape;
  GlobalMemory& memory;
  std::mt19937_64 chance;
  Counters counters;
  Findings found;
  Recorder* recorder = nullptr;  // of a recorded launch
  PendingClusters pending;
};

// Race between two lanes of a warp: `lane` reads or writes now, in no order with the earlier one.
void report_lanes(Warp& warp, int lane, bool writes, const LaneOrder::Earlier& earlier,
                  bool by_itself = false);

// What operations on a whole cluster agree on.
[[nodiscard]] inline Cluster& cluster_of(Step& step) {
  return step.warp.cta().cluster();
}

// Handlers by name, such as "add.f32".
using Registry = std::map<std::string, Handler>;
void register_arithmetic(Registry& registry);
void register_conversions(Registry& registry);
void register_moves(Registry& registry);
void register_accesses(Registry& registry);
void register_threads(Registry& registry);
void register_barriers(Registry& registry);
void register_bulk_copies(Registry& registry);
void register_matrices(Registry& registry);
void register_matrix_accesses(Registry& registry);
void register_calls(Registry& registry);
void register_cluster_launches(Registry& registry);
void register_async_stores(Registry& registry);
void register_tensor_map_edits(Registry& registry);
void register_register_pool(Registry& registry);
[[nodiscard]] const Registry& handlers();

// Executes every CTA of the launch. Fault, with the place in its sentence, if one does wrong.
// What it can go on from, such as a race, is added to `findings`. With a `recorder`, in the order
// of its model's time; the seed has no say. `observed`: may be null.
[[nodiscard]] Counters run(const Program& program, const LaunchShape& shape, GlobalMemory& memory,
                           std::uint64_t parameters, std::uint64_t seed,
                           std::vector<Finding>& findings, Recorder* recorder,
                           Edges* observed = nullptr);

}  // namespace gpusim
