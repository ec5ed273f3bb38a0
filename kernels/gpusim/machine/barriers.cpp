// SPDX-License-Identifier: MIT
// Named barriers, the barrier of a cluster, and mbarriers (PTX ISA 9.7.13 "bar", "barrier.cluster",
// 9.7.13.15 "mbarrier").
#include <bit>
#include <cstdint>
#include <string>
#include <type_traits>

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
  barrier.tell();
}

void complete(Step& step, Barrier& barrier) {
  const std::uint32_t expected =
      barrier.expected == 0 ? running_threads(step.warp.cta()) : barrier.expected;
  if (barrier.arrived == 0 || barrier.arrived < expected) return;
  barrier.complete();
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
  acting->knows.join(barrier.completed);
  return Flow::kNext;
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

Flow cluster_arrive(Step& step) {
  Barrier& barrier = cluster_of(step).barrier;
  barrier.arrived += static_cast<std::uint32_t>(std::popcount(step.mask));
  barrier.tell();
  step.each_lane(
      [&](int lane) { step.warp.cluster_phase[static_cast<std::size_t>(lane)] = barrier.phase; });
  cluster_of(step).happened();
  return Flow::kNext;
}

Flow cluster_wait(Step& step) {
  Cluster& cluster = cluster_of(step);
  Barrier& barrier = cluster.barrier;
  if (barrier.arrived > 0 && barrier.arrived >= running_threads(cluster)) {
    barrier.complete();
    cluster.happened();
  }
  if (step.warp.cluster_phase[static_cast<std::size_t>(step.lane())] != barrier.phase) {
    acting->knows.join(barrier.completed);
    return Flow::kNext;
  }
  step.fragment.waits_for = [&cluster] {
    return "the barrier of the cluster, with " + std::to_string(cluster.barrier.arrived) +
           " threads of " + std::to_string(running_threads(cluster));
  };
  return Flow::kWait;
}

// mbarrier.init: address, count.
Flow mbarrier_init(Step& step) {
  step.each_lane([&](int lane) {
    const Cluster::Place at = cluster_of(step).place(address(step, 0, lane));
    (void)at.cta->shared.at(at.offset, 8, 8);
    const std::uint32_t count = step.reg<std::uint32_t>(1)[lane];
    if (count == 0 || count >= 1U << 20) {
      throw Fault("mbarrier", "an mbarrier is initialised with the count " + std::to_string(count) +
                                  "; it must be 1 to 1048575");
    }
    at.cta->mbarriers[at.offset] = {
        .count = count, .pending = count, .arriving = {}, .completed = {}};
  });
  return Flow::kNext;
}

Flow mbarrier_inval(Step& step) {
  step.each_lane([&](int lane) {
    const Cluster::Place at = cluster_of(step).place(address(step, 0, lane));
    (void)cluster_of(step).mbarrier(address(step, 0, lane));
    at.cta->mbarriers.erase(at.offset);
  });
  return Flow::kNext;
}

// Operands: state (or the sink), address, count, bytes (either may be the sink: 1, and none).
Flow mbarrier_arrive(Step& step) {
  step.each_lane([&](int lane) {
    Cluster& cluster = cluster_of(step);
    Mbarrier& barrier = cluster.mbarrier(address(step, 1, lane));
    if (!step.sink(0)) step.reg<std::uint64_t>(0)[lane] = barrier.phase;
    const std::int64_t count = step.sink(2) ? 1 : step.reg<std::uint32_t>(2)[lane];
    const std::int64_t bytes = step.sink(3) ? 0 : step.reg<std::uint32_t>(3)[lane];
    cluster.arrive(barrier, count, bytes);
  });
  step.warp.lanes.announce();
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
    cluster.arrive(cluster.mbarrier(address(step, 0, lane)), 0,
                   -static_cast<std::int64_t>(step.reg<std::uint32_t>(1)[lane]));
  });
  return Flow::kNext;
}

std::string describe(Cluster& cluster, std::uint64_t address) {
  const Mbarrier& barrier = cluster.mbarrier(address);
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
      const Mbarrier& barrier = cluster.mbarrier(at);
      over = kParity ? (barrier.phase & 1) != (state & 1) : barrier.phase != state;
      if (over) acting->knows.join(barrier.completed);
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

// What this thread has synchronised with is ordered for the asynchronous proxy, too. Modifiers: 1:
// in shared memory, 2: in global memory.
Flow fence_proxy_async(Step& step) {
  if ((step.op.modifiers & 1) != 0) acting->knows.fence();
  if ((step.op.modifiers & 2) != 0) acting->knows.fence_global();
  return Flow::kNext;
}

}  // namespace

void register_barriers(Registry& registry) {
  registry["bar.sync"] = bar_sync;
  registry["bar.arrive"] = bar_arrive;
  registry["barrier.cluster.arrive"] = cluster_arrive;
  registry["barrier.cluster.wait"] = cluster_wait;
  registry["fence.proxy.async"] = fence_proxy_async;
  registry["mbarrier.init"] = mbarrier_init;
  registry["mbarrier.inval"] = mbarrier_inval;
  registry["mbarrier.arrive"] = mbarrier_arrive;
  registry["mbarrier.expect_tx"] = mbarrier_expect;
  registry["mbarrier.complete_tx"] = mbarrier_complete;
  registry["mbarrier.try_wait.parity"] = mbarrier_wait<true, true>;
  registry["mbarrier.test_wait.parity"] = mbarrier_wait<true, false>;
  registry["mbarrier.try_wait"] = mbarrier_wait<false, true>;
  registry["mbarrier.test_wait"] = mbarrier_wait<false, false>;
}

}  // namespace gpusim
