// SPDX-License-Identifier: MIT
// Instructions that compute every lane's result by itself: operand 0 takes it, a predicate is a
// mask.
#pragma once

#include <bit>
#include <cstdint>
#include <tuple>
#include <utility>

#include "cluster.h"

namespace gpusim {

template <class D, class F, class... S, std::size_t... I>
void map_lanes(Step& step, std::index_sequence<I...> /*operands*/) {
  D* const d = step.reg<D>(0);
  const F f;
  const std::tuple<const S*...> sources(step.reg<S>(static_cast<int>(I) + 1)...);
  if (step.mask == kAllLanes) {
    for (int lane = 0; lane < kLanes; ++lane) d[lane] = f(std::get<I>(sources)[lane]...);
  } else {
    step.each_lane([&](int lane) { d[lane] = f(std::get<I>(sources)[lane]...); });
  }
}

// d = F(a, ...) in every lane.
template <class D, class F, class... S>
Flow map(Step& step) {
  map_lanes<D, F, S...>(step, std::index_sequence_for<S...>());
  return Flow::kNext;
}

inline void set_predicate(Step& step, int operand, Mask value) {
  if (step.sink(operand)) return;
  Mask& at = step.predicate(operand);
  at = (at & ~step.mask) | (value & step.mask);
}

// The parts of register_arithmetic, a file each.
void register_integers(Registry& registry);
void register_bits(Registry& registry);
void register_comparisons(Registry& registry);
void register_floats(Registry& registry);
void register_halves(Registry& registry);

}  // namespace gpusim
