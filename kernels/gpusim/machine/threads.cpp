// SPDX-License-Identifier: MIT
// Where threads go, and what those of a warp tell each other: bra, exit, shfl, vote, redux, elect
// (PTX ISA 9.7.12 "control flow", 9.7.9 "shfl.sync", 9.7.13 "vote.sync", "redux.sync",
// "elect.sync").
#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>

#include "cluster.h"

namespace gpusim {
namespace {

// The threads that a .sync instruction names have to execute it together.
bool together(const Step& step, Mask named) {
  return (named & step.warp.live() & ~step.fragment.mask) == 0;
}

Flow bra(Step& step) {
  Fragment& fragment = step.fragment;
  const Mask taken = step.mask;
  if (taken == fragment.mask) {
    fragment.pc = step.op.target;
    return Flow::kJump;
  }
  fragment.mask &= ~taken;
  ++fragment.pc;
  // Invalidates `fragment`.
  step.warp.fragments.push_back({.pc = step.op.target, .mask = taken});
  return Flow::kJump;
}

Flow exit(Step& step) {
  step.fragment.mask &= ~step.mask;
  ++step.fragment.pc;
  cluster_of(step).happened();
  return Flow::kJump;
}

Flow trap(Step&) {
  throw Fault("trap", "the kernel executed a trap");
}

Flow nothing(Step&) {
  return Flow::kNext;
}

enum class Shuffle : std::uint8_t { kUp, kDown, kButterfly, kIndex };

// Operands: d, p (or the sink), a, b, c, the threads' mask. c: bits 0-4 clamp, 8-12 segments.
template <Shuffle kMode>
Flow shfl(Step& step) {
  if (!together(step, step.value<std::uint32_t>(5))) return Flow::kConverge;
  std::uint32_t source[kLanes];
  std::copy_n(step.reg<std::uint32_t>(2), kLanes, source);
  Mask found = 0;
  step.each_lane([&](int lane) {
    const auto b = static_cast<int>(step.reg<std::uint32_t>(3)[lane] & 31);
    const std::uint32_t c = step.reg<std::uint32_t>(4)[lane];
    const auto clamp = static_cast<int>(c & 31);
    const auto segment = static_cast<int>(c >> 8 & 31);
    const int most = (lane & segment) | (clamp & ~segment);
    const int least = lane & segment;
    int from = 0;
    bool inside = false;
    switch (kMode) {
      case Shuffle::kUp:
        from = lane - b;
        inside = from >= most;
        break;
      case Shuffle::kDown:
        from = lane + b;
        inside = from <= most;
        break;
      case Shuffle::kButterfly:
        from = lane ^ b;
        inside = from <= most;
        break;
      case Shuffle::kIndex:
        from = least | (b & ~segment);
        inside = from <= most;
        break;
    }
    if (!inside) from = lane;
    if ((step.fragment.mask >> from & 1) == 0) {
      throw Fault("shuffle", "lane " + std::to_string(lane) + " reads lane " +
                                 std::to_string(from) + ", which does not execute this shfl.sync");
    }
    step.reg<std::uint32_t>(0)[lane] = source[from];
    if (inside) found |= Mask{1} << lane;
  });
  if (!step.sink(1)) {
    Mask& predicate = step.predicate(1);
    predicate = (predicate & ~step.mask) | found;
  }
  return Flow::kNext;
}

enum class Vote : std::uint8_t { kAll, kAny, kUniform, kBallot };

// Operands: d, a, the threads' mask. Modifier 1: a is negated.
template <Vote kMode>
Flow vote(Step& step) {
  const Mask named = step.value<std::uint32_t>(2);
  if (!together(step, named)) return Flow::kConverge;
  Mask votes = step.predicate(1);
  if (step.op.modifiers == 1) votes = ~votes;
  const Mask of = named & step.fragment.mask;
  votes &= of;
  if constexpr (kMode == Vote::kBallot) {
    step.each_lane([&](int lane) { step.reg<std::uint32_t>(0)[lane] = votes; });
  } else {
    const bool all = votes == of;
    const bool any = votes != 0;
    const bool result = kMode == Vote::kAll ? all : kMode == Vote::kAny ? any : all || !any;
    Mask& d = step.predicate(0);
    d = (d & ~step.mask) | (result ? step.mask : 0);
  }
  return Flow::kNext;
}

// Operands: d, a, the threads' mask.
template <class T, class F>
Flow redux(Step& step) {
  if (!together(step, step.value<std::uint32_t>(2))) return Flow::kConverge;
  const T* const a = step.reg<T>(1);
  T result = a[step.lane()];
  const F f;
  for (Mask rest = step.mask & (step.mask - 1); rest != 0; rest &= rest - 1) {
    result = f(result, a[std::countr_zero(rest)]);
  }
  step.each_lane([&](int lane) { step.reg<T>(0)[lane] = result; });
  return Flow::kNext;
}

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
struct Least {
  template <class T>
  T operator()(T a, T b) const {
    return std::min(a, b);
  }
};
struct Greatest {
  template <class T>
  T operator()(T a, T b) const {
    return std::max(a, b);
  }
};
struct Both {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a & b; }
};
struct Either {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a | b; }
};
struct Differ {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a ^ b; }
};

// Operands: d (or the sink), p, the threads' mask. The lowest of them is elected.
Flow elect(Step& step) {
  const Mask named = step.value<std::uint32_t>(2);
  if (!together(step, named)) return Flow::kConverge;
  const int leader = std::countr_zero(named & step.fragment.mask);
  if (!step.sink(0)) {
    step.each_lane(
        [&](int lane) { step.reg<std::uint32_t>(0)[lane] = static_cast<std::uint32_t>(leader); });
  }
  Mask& predicate = step.predicate(1);
  predicate = (predicate & ~step.mask) | (Mask{1} << leader & step.mask);
  return Flow::kNext;
}

Flow activemask(Step& step) {
  step.each_lane([&](int lane) { step.reg<std::uint32_t>(0)[lane] = step.mask; });
  return Flow::kNext;
}

Flow warp_sync(Step& step) {
  return together(step, step.value<std::uint32_t>(0)) ? Flow::kNext : Flow::kConverge;
}

}  // namespace

void register_threads(Registry& registry) {
  registry["bra"] = bra;
  registry["exit"] = exit;
  registry["trap"] = trap;
  registry["nop"] = nothing;
  registry["shfl.up"] = shfl<Shuffle::kUp>;
  registry["shfl.down"] = shfl<Shuffle::kDown>;
  registry["shfl.bfly"] = shfl<Shuffle::kButterfly>;
  registry["shfl.idx"] = shfl<Shuffle::kIndex>;
  registry["vote.all"] = vote<Vote::kAll>;
  registry["vote.any"] = vote<Vote::kAny>;
  registry["vote.uni"] = vote<Vote::kUniform>;
  registry["vote.ballot"] = vote<Vote::kBallot>;
  registry["redux.add.u32"] = redux<std::uint32_t, Sum>;
  registry["redux.add.s32"] = redux<std::uint32_t, Sum>;
  registry["redux.min.u32"] = redux<std::uint32_t, Least>;
  registry["redux.max.u32"] = redux<std::uint32_t, Greatest>;
  registry["redux.min.s32"] = redux<std::int32_t, Least>;
  registry["redux.max.s32"] = redux<std::int32_t, Greatest>;
  registry["redux.and.b32"] = redux<std::uint32_t, Both>;
  registry["redux.or.b32"] = redux<std::uint32_t, Either>;
  registry["redux.xor.b32"] = redux<std::uint32_t, Differ>;
  registry["elect"] = elect;
  registry["activemask"] = activemask;
  registry["bar.warp.sync"] = warp_sync;
}

}  // namespace gpusim
