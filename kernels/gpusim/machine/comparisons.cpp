// SPDX-License-Identifier: MIT
// Comparison, selection and what predicates compute (PTX ISA 9.7.6, 9.7.7, 9.7.8, 9.7.3.1).
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

#include "lanes.h"
#include "widths.h"

namespace gpusim {
namespace {

// p = F(a, ...) in every lane.
template <class F, class S>
Mask compare_lanes(Step& step, int first) {
  const S* const a = step.reg<S>(first);
  const S* const b = step.reg<S>(first + 1);
  const F f;
  Mask result = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    result |= static_cast<Mask>(f(a[lane], b[lane])) << lane;
  return result;
}

// Modifiers of setp: how the result is combined with predicate operand 4 (3: xor), which may be
// negated.
constexpr int64_t kAnd = 1;
constexpr int64_t kOr = 2;
constexpr int64_t kNegated = 4;

Mask combined(Step& step, Mask value, int operand) {
  const int64_t how = step.op.modifiers & 3;
  if (how == 0) return value;
  Mask other = step.predicate(operand);
  if ((step.op.modifiers & kNegated) != 0) other = ~other;
  if (how == kAnd) return value & other;
  if (how == kOr) return value | other;
  return value ^ other;
}

template <class F, class S>
Flow setp(Step& step) {
  const Mask value = compare_lanes<F, S>(step, 2);
  const Mask complement = combined(step, ~value, 4);
  set_predicate(step, 0, combined(step, value, 4));
  set_predicate(step, 1, complement);
  return Flow::kNext;
}

template <auto kLogic>
Flow predicate_logic(Step& step) {
  set_predicate(step, 0, kLogic(step.predicate(1), step.predicate(2)));
  return Flow::kNext;
}

Flow predicate_not(Step& step) {
  set_predicate(step, 0, ~step.predicate(1));
  return Flow::kNext;
}

Flow predicate_move(Step& step) {
  set_predicate(step, 0, step.predicate(1));
  return Flow::kNext;
}

template <class T>
Flow selp(Step& step) {
  T* const d = step.reg<T>(0);
  const T* const a = step.reg<T>(1);
  const T* const b = step.reg<T>(2);
  const Mask chosen = step.predicate(3);
  for (Mask rest = step.mask; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    d[lane] = (chosen >> lane & 1) != 0 ? a[lane] : b[lane];
  }
  return Flow::kNext;
}

Flow selp_predicate(Step& step) {
  const Mask chosen = step.predicate(3);
  set_predicate(step, 0, (step.predicate(1) & chosen) | (step.predicate(2) & ~chosen));
  return Flow::kNext;
}

// Comparisons. With NaN: false, but for those ending in u.
template <class T>
struct Eq {
  bool operator()(T a, T b) const { return a == b; }
};
template <class T>
struct Ne {  // of floats: true only if both are numbers
  bool operator()(T a, T b) const { return a < b || a > b; }
};
template <class T>
struct Lt {
  bool operator()(T a, T b) const { return a < b; }
};
template <class T>
struct Le {
  bool operator()(T a, T b) const { return a <= b; }
};
template <class T>
struct Gt {
  bool operator()(T a, T b) const { return a > b; }
};
template <class T>
struct Ge {
  bool operator()(T a, T b) const { return a >= b; }
};
template <class F, class T>
struct Unordered {
  bool operator()(T a, T b) const { return std::isnan(a) || std::isnan(b) || F()(a, b); }
};
template <class T>
struct BothNumbers {
  bool operator()(T a, T b) const { return !std::isnan(a) && !std::isnan(b); }
};
template <class T>
struct EitherNan {
  bool operator()(T a, T b) const { return std::isnan(a) || std::isnan(b); }
};

// Of one number: operands p, a.
template <class T, auto kTest>
Flow testp(Step& step) {
  const T* const a = step.reg<T>(1);
  Mask result = 0;
  for (int lane = 0; lane < kLanes; ++lane) result |= static_cast<Mask>(kTest(a[lane])) << lane;
  set_predicate(step, 0, result);
  return Flow::kNext;
}
template <class T>
void add_tests(Registry& registry, const std::string& type) {
  const auto add = [&](const char* name, Handler handler) {
    registry[std::string("testp.") + name + "." + type] = handler;
  };
  add("finite", testp<T, [](T a) { return std::isfinite(a); }>);
  add("infinite", testp<T, [](T a) { return std::isinf(a); }>);
  add("number", testp<T, [](T a) { return !std::isnan(a); }>);
  add("notanumber", testp<T, [](T a) { return std::isnan(a); }>);
  // PTX ISA 9.7.3.1: a zero is normal.
  add("normal", testp<T, [](T a) { return std::isnormal(a) || a == 0; }>);
  add("subnormal", testp<T, [](T a) { return std::fpclassify(a) == FP_SUBNORMAL; }>);
}

template <class T>
void add_ordered(Registry& registry, const std::string& type) {
  const auto add = [&](const char* name, Handler handler) {
    registry[std::string("setp.") + name + "." + type] = handler;
  };
  add("eq", setp<Eq<T>, T>);
  add("ne", setp<Ne<T>, T>);
  add("lt", setp<Lt<T>, T>);
  add("le", setp<Le<T>, T>);
  add("gt", setp<Gt<T>, T>);
  add("ge", setp<Ge<T>, T>);
  if constexpr (std::is_floating_point_v<T>) {
    add("equ", setp<Unordered<Eq<T>, T>, T>);
    add("neu", setp<Unordered<Ne<T>, T>, T>);
    add("ltu", setp<Unordered<Lt<T>, T>, T>);
    add("leu", setp<Unordered<Le<T>, T>, T>);
    add("gtu", setp<Unordered<Gt<T>, T>, T>);
    add("geu", setp<Unordered<Ge<T>, T>, T>);
    add("num", setp<BothNumbers<T>, T>);
    add("nan", setp<EitherNan<T>, T>);
  }
}

template <class T>
void add_bits(Registry& registry, const std::string& type) {
  registry["selp." + type] = selp<T>;
  registry["setp.eq." + type] = setp<Eq<T>, T>;
  registry["setp.ne." + type] = setp<Ne<T>, T>;
}

}  // namespace

void register_comparisons(Registry& registry) {
  add_ordered<uint16_t>(registry, "u16");
  add_ordered<int16_t>(registry, "s16");
  add_ordered<uint32_t>(registry, "u32");
  add_ordered<int32_t>(registry, "s32");
  add_ordered<uint64_t>(registry, "u64");
  add_ordered<int64_t>(registry, "s64");
  add_ordered<float>(registry, "f32");
  add_ordered<double>(registry, "f64");
  add_tests<float>(registry, "f32");
  add_tests<double>(registry, "f64");
  add_bits<uint16_t>(registry, "b16");
  add_bits<uint32_t>(registry, "b32");
  add_bits<uint64_t>(registry, "b64");
  registry["and.pred"] = predicate_logic<[](Mask a, Mask b) { return a & b; }>;
  registry["or.pred"] = predicate_logic<[](Mask a, Mask b) { return a | b; }>;
  registry["xor.pred"] = predicate_logic<[](Mask a, Mask b) { return a ^ b; }>;
  registry["not.pred"] = predicate_not;
  registry["mov.pred"] = predicate_move;
  registry["selp.pred"] = selp_predicate;
}

}  // namespace gpusim
