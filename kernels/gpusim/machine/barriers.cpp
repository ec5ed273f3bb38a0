// SPDX-License-Identifier: MIT
// Named barriers, the barrier of a cluster, and mbarriers (PTX ISA 9.7.13 "bar", "barrier.cluster",
// 9.7.13.15 "mbarrier").
#include <bit>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "cluster.h"

namespace gpusim {
namespace {

constexpr std::int64_t kNarrowAddress = 2;  // modifier: the address is a 32-bit register

std::uint64_t address(Step& step, int operand, int lane) {
  const std::uint64_t base = (step.op.modifiers & kNarrowAddress) != 0
                                 ? step.reg<std::uint32_t>(operand)[lane]
                                 : step.reg<std::uint64_t>(operand)[lane];
  return base + static_cast<std::uint64_t>(step.offset(operand));
}

// Threads of the CTA that still run, in whole warps.
std::uint32_t running_threads(Cta& cta) {
  std::uint32_t warps = 0;
  for (const auto& warp : cta.warps) warps += warp->live() != 0 ? 1 : 0;
  return warps * kLanes;
}

Barrier& named(Step& step) {
  const auto id = step.value<std::uint32_t>(0);
  if (id >= step.warp.cta().barriers.size()) {
    throw Fault("barrier", "barrier " + std::to_string(id) + " does not exist: a CTA has 16");
  }
  return step.warp.cta().barriers[id];
}

void arrive_at(Step& step, Barrier& barrier) {
  const std::uint32_t expected = step.sink(1) ? 0 : step.value<std::uint32_t>(1);
  if (expected % kLanes != 0) {
    throw Fault("barrier", std::to_string(expected) +
                               " threads are named at a barrier, which is no multiple of 32");
  }
  if (barrier.arrived > 0 && barrier.expected != expected) {
    throw Fault("barrier", "warps name " + std::to_string(barrier.expected) + " and " +
                               std::to_string(expected) + " threads at one barrier");
  }
  barrier.expected = expected;
  barrier.arrived += kLanes;
  barrier.tell(step.value<std::uint32_t>(0));
}

void complete(Step& step, Barrier& barrier) {
  const std::uint32_t expected =
      barrier.expected == 0 ? running_threads(step.warp.cta()) : barrier.expected;
  if (barrier.arrived == 0 || barrier.arrived < expected) return;
  barrier.complete(step.value<std::uint32_t>(0));
  cluster_of(step).happened();
}

// Operands: the barrier, the threads (the sink: all).
Flow bar_sync(Step& step) {
  Fragment& fragment = step.fragment;
  if ((step.warp.live() & ~fragment.mask) != 0) return Flow::kConverge;
  Barrier& barrier = named(step);
  if (!fragment.arrived) {
    fragment.arrived = true;
    fragment.phase = barrier.phase;
    arrive_at(step, barrier);
  }
  complete(step, barrier);
  note_barrier(step.value<std::uint32_t>(0));
  if (barrier.phase == fragment.phase) {
    fragment.waits_for = [id = step.value<std::uint32_t>(0), &barrier] {
      return "barrier " + std::to_string(id) + " with " + std::to_string(barrier.arrived) +
             " threads of " + (barrier.expected == 0 ? "all" : std::to_string(barrier.expected));
    };
    return Flow::kWait;
  }
  fragment.arrived = false;
  acquire(barrier.completed);
  return Flow::kNext;
}

// Operands: the barrier, the threads (the sink: all), the result, a predicate.
enum class Tally : std::uint8_t { kCount, kAll, kAny };
template <Tally kTally>
Flow bar_red(Step& step) {
  if ((step.warp.live() & ~step.fragment.mask) != 0) return Flow::kConverge;
  if (!step.fragment.arrived) {
    Barrier& barrier = named(step);
    barrier.voted += static_cast<std::uint32_t>(std::popcount(step.mask));
    barrier.in_favour += static_cast<std::uint32_t>(std::popcount(step.predicate(3) & step.mask));
  }
  const Flow flow = bar_sync(step);
  if (flow != Flow::kNext) return flow;
  const Barrier& barrier = named(step);
  if constexpr (kTally == Tally::kCount) {
    step.each_lane([&](int lane) { step.reg<std::uint32_t>(2)[lane] = barrier.result_in_favour; });
  } else {
    const bool yes = kTally == Tally::kAll ? barrier.result_in_favour == barrier.result_voted
                                           : barrier.result_in_favour != 0;
    Mask& d = step.predicate(2);
    d = yes ? d | step.mask : d & ~step.mask;
  }
  return flow;
}

Flow bar_arrive(Step& step) {
  if ((step.warp.live() & ~step.fragment.mask) != 0) return Flow::kConverge;
  Barrier& barrier = named(step);
  arrive_at(step, barrier);
  complete(step, barrier);
  return Flow::kNext;
}

// Threads of the cluster that still run.
std::uint32_t running_threads(Cluster& cluster) {
  std::uint32_t threads = 0;
  for (const auto& cta : cluster.ctas) {
    for (const auto& warp : cta->warps)
      threads += static_cast<std::uint32_t>(std::popcount(warp->live()));
  }
  return threads;
}

// A .relaxed arrival tells only what its warp knew at its last fence.
class Silent {
 public:
  Silent(const Warp& warp, bool silent) : silent_(silent) {
    if (silent_) knows_ = std::exchange(acting->knows, warp.released);
  }
  ~Silent() {
    if (!silent_) return;
    std::swap(knows_, acting->knows);
    acting->knows.all.set(acting->now);
  }
  Silent(const Silent&) = delete;
  Silent& operator=(const Silent&) = delete;

 private:
  bool silent_;
  Knowledge knows_;
};

constexpr std::int64_t kRelaxed = 4;

Flow cluster_arrive(Step& step) {
  const Silent silent(step.warp, (step.op.modifiers & kRelaxed) != 0);
  Barrier& barrier = cluster_of(step).barrier;
  barrier.arrived += static_cast<std::uint32_t>(std::popcount(step.mask));
  barrier.tell(0);
  step.each_lane(
      [&](int lane) { step.warp.cluster_phase[static_cast<std::size_t>(lane)] = barrier.phase; });
  cluster_of(step).happened();
  return Flow::kNext;
}

Flow cluster_wait(Step& step) {
  Cluster& cluster = cluster_of(step);
  Barrier& barrier = cluster.barrier;
  if (barrier.arrived > 0 && barrier.arrived >= running_threads(cluster)) {
    barrier.complete(0);
    cluster.happened();
  }
  if (step.warp.cluster_phase[static_cast<std::size_t>(step.lane())] != barrier.phase) {
    acquire(barrier.completed);
    return Flow::kNext;
  }
  step.fragment.waits_for = [&cluster] {
    return "the barrier of the cluster, with " + std::to_string(cluster.barrier.arrived) +
           " threads of " + std::to_string(running_threads(cluster));
  };
  return Flow::kWait;
}

// An mbarrier begins or ends: to the race detector a write, of which other operations are readers.
void overwrite(Cta& cta, std::uint32_t offset) {
  Agent agent = *acting;
  agent.proxy = Proxy::kAsync;  // another fence than that of proxies concerns it
  Agent* const self = std::exchange(acting, &agent);
  cta.shared.wrote(offset, kMbarrierBytes);
  acting = self;
}

// mbarrier.init: address, count.
Flow mbarrier_init(Step& step) {
  step.each_lane([&](int lane) {
    const Cluster::Place at = cluster_of(step).place(address(step, 0, lane));
    (void)at.cta->shared.at(at.offset, kMbarrierBytes, kMbarrierBytes);
    const std::uint32_t count = step.reg<std::uint32_t>(1)[lane];
    if (count == 0 || count >= 1U << 20) {
      throw Fault("mbarrier", "an mbarrier is initialised with the count " + std::to_string(count) +
                                  "; it must be 1 to 1048575");
    }
    overwrite(*at.cta, at.offset);
    at.cta->mbarriers[at.offset] = {.count = count,
                                    .pending = count,
                                    .arriving = {},
                                    .completed = {},
                                    .init = Act::of(*acting)};
  });
  return Flow::kNext;
}

Flow mbarrier_inval(Step& step) {
  step.each_lane([&](int lane) {
    const Cluster::Place at = cluster_of(step).place(address(step, 0, lane));
    (void)cluster_of(step).mbarrier(address(step, 0, lane));
    overwrite(*at.cta, at.offset);
    at.cta->mbarriers.erase(at.offset);
  });
  return Flow::kNext;
}

// What a thread gets of an mbarrier at which it arrives: the phase, and how many were to arrive.
constexpr int kPendingBits = 20;

// The lanes of one arrival at one mbarrier are meant for one phase.
void demand_one_phase(Step& step, int lane) {
  step.warp.machine().found.add("mbarrier", step.warp.agent.pc, "two phases", [&] {
    return "the lanes of one arrival count in two phases of the mbarrier at " +
           hex(address(step, 1, lane)) + ": its count is less than the lanes that arrive\n  " +
           whereabouts(step.warp, step.mask);
  });
}

// Operands: state (or the sink), address, count, bytes (either may be the sink: 1, and none).
// Modifiers: kDrop: the next phases are without this thread; kNoComplete: the phase does not end.
constexpr std::int64_t kDrop = 8;
constexpr std::int64_t kNoComplete = 16;
Flow mbarrier_arrive(Step& step) {
  const Silent silent(step.warp, (step.op.modifiers & kRelaxed) != 0);
  const Mbarrier* arrived_at = nullptr;
  std::uint64_t phase = 0;
  step.each_lane([&](int lane) {
    Cluster& cluster = cluster_of(step);
    Mbarrier& barrier = cluster.mbarrier(address(step, 1, lane));
    if (arrived_at == &barrier && barrier.phase != phase) demand_one_phase(step, lane);
    arrived_at = &barrier;
    phase = barrier.phase;
    if (!step.sink(0)) {
      step.reg<std::uint64_t>(0)[lane] =
          barrier.phase << kPendingBits | static_cast<std::uint64_t>(barrier.pending);
    }
    const std::int64_t count = step.sink(2) ? 1 : step.reg<std::uint32_t>(2)[lane];
    const std::int64_t bytes = step.sink(3) ? 0 : step.reg<std::uint32_t>(3)[lane];
    if ((step.op.modifiers & kDrop) != 0) barrier.count -= count;
    if ((step.op.modifiers & kNoComplete) != 0 && barrier.pending == count) {
      throw Fault("mbarrier", "an arrival with .noComplete is the last of its phase");
    }
    cluster.arrive(address(step, 1, lane), count, bytes);
  });
  step.warp.lanes.announce();
  return Flow::kNext;
}

// Operands: count, state.
Flow mbarrier_pending(Step& step) {
  step.each_lane([&](int lane) {
    const std::uint64_t state = step.reg<std::uint64_t>(1)[lane];
    step.reg<std::uint32_t>(0)[lane] =
        static_cast<std::uint32_t>(state & ((std::uint64_t{1} << kPendingBits) - 1));
  });
  return Flow::kNext;
}

// Operands: address, bytes.
Flow mbarrier_expect(Step& step) {
  step.each_lane([&](int lane) {
    cluster_of(step).mbarrier(address(step, 0, lane)).expected_bytes +=
        step.reg<std::uint32_t>(1)[lane];
  });
  return Flow::kNext;
}

Flow mbarrier_complete(Step& step) {
  step.each_lane([&](int lane) {
    Cluster& cluster = cluster_of(step);
    cluster.arrive(address(step, 0, lane), 0,
                   -static_cast<std::int64_t>(step.reg<std::uint32_t>(1)[lane]));
  });
  return Flow::kNext;
}

std::string describe(Cluster& cluster, std::uint64_t address) {
  const Mbarrier& barrier = cluster.mbarrier_at(address);
  return "the mbarrier at shared address " + hex(address) + ", phase " +
         std::to_string(barrier.phase) + ", " + std::to_string(barrier.pending) + " of " +
         std::to_string(barrier.count) + " arrivals and " + std::to_string(barrier.expected_bytes) +
         " bytes outstanding";
}

// Operands: p, address, parity (or, unless kParity, the state of an arrival). try_wait may suspend
// its threads for a while: here until something happens, or until nothing else can go on.
template <bool kParity, bool kTry>
Flow mbarrier_wait(Step& step) {
  using State = std::conditional_t<kParity, std::uint32_t, std::uint64_t>;
  Cluster& cluster = cluster_of(step);
  Mask complete = 0;
  bool late = false;
  std::uint64_t asked = ~std::uint64_t{0};  // most often all lanes ask the same
  State state = 0;
  bool over = false;
  step.each_lane([&](int lane) {
    const std::uint64_t at = address(step, 1, lane);
    if (const State of_lane = step.reg<State>(2)[lane]; at != asked || of_lane != state) {
      asked = at;
      note_barrier(at & ((1U << kRankShift) - 1));
      state = of_lane;
      Mbarrier& barrier = cluster.mbarrier(at);
      over = kParity ? (barrier.phase & 1) != (state & 1) : barrier.phase != state >> kPendingBits;
      if (over) {
        barrier.phases.pass(cluster.place(at).offset);
        acquire(barrier.completed);
      }
      late = late || !over;
    }
    if (over) complete |= Mask{1} << lane;
  });
  Fragment& fragment = step.fragment;
  if (kTry && late && !fragment.out_of_time) {
    const int waiting = std::countr_zero(step.mask & ~complete);
    fragment.waits_for = [&cluster, at = address(step, 1, waiting)] {
      return describe(cluster, at);
    };
    fragment.may_time_out = true;
    return Flow::kWait;
  }
  if (!kTry && late) {
    fragment.polls.reads({.pc = step.warp.agent.pc,
                          .bytes = 8,
                          .address = address(step, 1, step.lane()),
                          .value = state,
                          .digest = complete},
                         false);
  }
  if (complete != 0) step.warp.lanes.wait();
  fragment.out_of_time = false;
  fragment.may_time_out = false;
  Mask& predicate = step.predicate(0);
  predicate = (predicate & ~step.mask) | complete;
  return Flow::kNext;
}

// Initialisations that this thread knows of are seen by other CTAs and the asynchronous proxy, and
// a relaxed arrival tells them. (What else it knows then is told as well, which PTX does not
// promise.)
Flow fence_mbarrier_init(Step& step) {
  step.warp.released = acting->knows;
  for (auto& [_, barrier] : step.warp.cta().mbarriers) {
    barrier.fenced = barrier.fenced || acting->knows.all.covers(barrier.init.epoch);
  }
  return Flow::kNext;
}

// What this thread has synchronised with is ordered for the asynchronous proxy, too. Modifiers: 1:
// in shared memory, 2: in global memory.
Flow fence_proxy_async(Step& step) {
  const bool shared = (step.op.modifiers & 1) != 0;
  fence_proxies(shared, (step.op.modifiers & 2) != 0);
  return shared ? fence_mbarrier_init(step) : Flow::kNext;
}

}  // namespace

void register_barriers(Registry& registry) {
  registry["bar.sync"] = bar_sync;
  registry["bar.arrive"] = bar_arrive;
  registry["bar.red.popc"] = bar_red<Tally::kCount>;
  registry["bar.red.and"] = bar_red<Tally::kAll>;
  registry["bar.red.or"] = bar_red<Tally::kAny>;
  registry["barrier.cluster.arrive"] = cluster_arrive;
  registry["barrier.cluster.wait"] = cluster_wait;
  registry["fence.mbarrier_init"] = fence_mbarrier_init;
  registry["fence.proxy.async"] = fence_proxy_async;
  registry["mbarrier.init"] = mbarrier_init;
  registry["mbarrier.inval"] = mbarrier_inval;
  registry["mbarrier.arrive"] = mbarrier_arrive;
  registry["mbarrier.pending_count"] = mbarrier_pending;
  registry["mbarrier.expect_tx"] = mbarrier_expect;
  registry["mbarrier.complete_tx"] = mbarrier_complete;
  registry["mbarrier.try_wait.parity"] = mbarrier_wait<true, true>;
  registry["mbarrier.test_wait.parity"] = mbarrier_wait<true, false>;
  registry["mbarrier.try_wait"] = mbarrier_wait<false, true>;
  registry["mbarrier.test_wait"] = mbarrier_wait<false, false>;
}

}  // namespace gpusim
