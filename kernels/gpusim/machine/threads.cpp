// SPDX-License-Identifier: MIT
// Where threads go, and what those of a warp tell each other: bra, exit, shfl, vote, redux, elect,
// match, activemask (PTX ISA 9.7.12, 9.7.9.6, 9.7.13.2, 9.7.13.9 to 9.7.13.12, 9.7.13.14).
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "cluster.h"
#include "floating.h"

namespace gpusim {
namespace {

// The threads that a .sync instruction names have to execute it together. Groups of a warp may
// execute it at once, each naming its own threads: `act` is called with the threads of each group.
// False: some have not come yet.
template <class Do>
bool each_group(Step& step, int named_operand, Do act) {
  const std::uint32_t* const named = step.reg<std::uint32_t>(named_operand);
  for (Mask rest = step.mask; rest != 0;) {
    const int lane = std::countr_zero(rest);
    const Mask members = named[lane];
    if ((members >> lane & 1) == 0) {
      throw Fault("member-mask", "lane " + std::to_string(lane) + " is not in the mask " +
                                     hex(members) + " that it names");
    }
    if ((members & step.warp.live() & ~step.fragment.mask) != 0) return false;
    rest &= ~members;
  }
  for (Mask rest = step.mask; rest != 0;) {
    const Mask members = named[std::countr_zero(rest)] & step.mask;
    act(members);
    rest &= ~members;
  }
  return true;
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
  step.warp.fragments.push_back(
      {.pc = step.op.target, .mask = taken, .polls = Polls(fragment.polls)});
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

// What follows the branches of brx.idx.
Flow no_target(Step& step) {
  throw Fault("branch", "index " + std::to_string(step.value<std::uint32_t>(0)) +
                            " of brx.idx is beyond its list of targets");
}

Flow nothing(Step&) {
  return Flow::kNext;
}

enum class Shuffle : std::uint8_t { kUp, kDown, kButterfly, kIndex };

// Operands: d, p (or the sink), a, b, c, the threads' mask. c: bits 0-4 clamp, 8-12 segments.
template <Shuffle kMode>
Flow shfl(Step& step) {
  if (!each_group(step, 5, [](Mask) {})) return Flow::kConverge;
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
    if ((step.mask >> from & 1) == 0) {
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

// Operands: d, a, the threads' mask.
template <Vote kMode>
Flow vote(Step& step) {
  const Mask votes = step.predicate(1);
  Mask result = 0;
  const bool together = each_group(step, 2, [&](Mask members) {
    const Mask in_favour = votes & members;
    const bool all = in_favour == members;
    const bool any = in_favour != 0;
    if constexpr (kMode == Vote::kBallot) {
      for (Mask rest = members; rest != 0; rest &= rest - 1) {
        step.reg<std::uint32_t>(0)[std::countr_zero(rest)] = in_favour;
      }
    } else if (kMode == Vote::kAll ? all : kMode == Vote::kAny ? any : all || !any) {
      result |= members;
    }
  });
  if (!together) return Flow::kConverge;
  if constexpr (kMode != Vote::kBallot) {
    Mask& d = step.predicate(0);
    d = (d & ~step.mask) | result;
  }
  return Flow::kNext;
}

// Operands: d, p (or the sink), a, the threads' mask. All: do all have one value? Else: who has
// mine?
template <class T, bool kAll>
Flow match(Step& step) {
  const T* const a = step.reg<T>(2);
  T values[kLanes];
  std::copy_n(a, kLanes, values);
  Mask unanimous = 0;
  const bool together = each_group(step, 3, [&](Mask members) {
    for (Mask rest = members; rest != 0; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      Mask same = 0;
      for (Mask other = members; other != 0; other &= other - 1) {
        const int at = std::countr_zero(other);
        if (values[at] == values[lane]) same |= Mask{1} << at;
      }
      if (same == members) unanimous |= Mask{1} << lane;
      step.reg<std::uint32_t>(0)[lane] = kAll && same != members ? 0 : same;
    }
  });
  if (!together) return Flow::kConverge;
  if (!step.sink(1)) {
    Mask& predicate = step.predicate(1);
    predicate = (predicate & ~step.mask) | unanimous;
  }
  return Flow::kNext;
}

// Operands: d, a, the threads' mask.
template <class T, class F>
Flow redux(Step& step) {
  T values[kLanes];
  std::copy_n(step.reg<T>(1), kLanes, values);
  const bool together = each_group(step, 2, [&](Mask members) {
    if (members == 0) return;
    T result = F::first(values[std::countr_zero(members)]);
    for (Mask rest = members & (members - 1); rest != 0; rest &= rest - 1) {
      result = F()(result, values[std::countr_zero(rest)]);
    }
    for (Mask rest = members; rest != 0; rest &= rest - 1) {
      step.reg<T>(0)[std::countr_zero(rest)] = result;
    }
  });
  return together ? Flow::kNext : Flow::kConverge;
}

struct AsItIs {
  template <class T>
  static T first(T value) {
    return value;
  }
};
struct Sum : AsItIs {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a + b; }
};
struct Least : AsItIs {
  template <class T>
  T operator()(T a, T b) const {
    return std::min(a, b);
  }
};
struct Greatest : AsItIs {
  template <class T>
  T operator()(T a, T b) const {
    return std::max(a, b);
  }
};
struct Both : AsItIs {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a & b; }
};
struct Either : AsItIs {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a | b; }
};
struct Differ : AsItIs {
  std::uint32_t operator()(std::uint32_t a, std::uint32_t b) const { return a ^ b; }
};
// Of f32: F chooses one of two.
template <class F, bool kAbs>
struct Chosen {
  static float first(float value) { return kAbs ? std::fabs(value) : value; }
  float operator()(float a, float b) const { return F()(a, first(b)); }
};

// Operands: d, p, the threads' mask. The lowest of them is elected.
Flow elect(Step& step) {
  Mask elected = 0;
  const bool together = each_group(step, 2, [&](Mask members) {
    const int leader = std::countr_zero(members);
    elected |= Mask{1} << leader;
    for (Mask rest = members; rest != 0; rest &= rest - 1) {
      step.reg<std::uint32_t>(0)[std::countr_zero(rest)] = static_cast<std::uint32_t>(leader);
    }
  });
  if (!together) return Flow::kConverge;
  Mask& predicate = step.predicate(1);
  predicate = (predicate & ~step.mask) | elected;
  return Flow::kNext;
}

Flow activemask(Step& step) {
  step.each_lane([&](int lane) { step.reg<std::uint32_t>(0)[lane] = step.mask; });
  return Flow::kNext;
}

// Threads may wait at different bar.warp.syncs for each other, and then go on together.
Flow warp_sync(Step& step) {
  if (each_group(step, 0, [](Mask) {})) return Flow::kNext;
  const Mask named = step.value<std::uint32_t>(0);
  const std::vector<Op>& ops = step.warp.machine().program.ops;
  const auto waits = [&](const Fragment& fragment) {
    return ops[fragment.pc].run == warp_sync && (fragment.mask & ~named) == 0;
  };
  Mask here = 0;
  for (const Fragment& fragment : step.warp.fragments) {
    if (waits(fragment)) here |= fragment.mask;
  }
  if ((named & step.warp.live() & ~here) != 0) return Flow::kConverge;
  for (Fragment& fragment : step.warp.fragments) {
    if (&fragment == &step.fragment || !waits(fragment)) continue;
    ++fragment.pc;
    fragment.seen = 0;
  }
  return Flow::kNext;
}

template <class F>
void add_float_redux(Registry& registry, const std::string& name) {
  using NanWins = OrNan<F, float>;
  registry[name + ".f32"] = redux<float, Chosen<F, false>>;
  registry[name + ".abs.f32"] = redux<float, Chosen<F, true>>;
  registry[name + ".nan.f32"] = redux<float, Chosen<NanWins, false>>;
  registry[name + ".abs.nan.f32"] = redux<float, Chosen<NanWins, true>>;
}

}  // namespace

void register_threads(Registry& registry) {
  registry["bra"] = bra;
  registry["exit"] = exit;
  registry["trap"] = trap;
  registry["brx.idx.no_target"] = no_target;
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
  add_float_redux<FloatMin<float>>(registry, "redux.min");
  add_float_redux<FloatMax<float>>(registry, "redux.max");
  registry["match.any.b32"] = match<std::uint32_t, false>;
  registry["match.any.b64"] = match<std::uint64_t, false>;
  registry["match.all.b32"] = match<std::uint32_t, true>;
  registry["match.all.b64"] = match<std::uint64_t, true>;
  registry["elect"] = elect;
  registry["activemask"] = activemask;
  registry["bar.warp.sync"] = warp_sync;
}

}  // namespace gpusim
