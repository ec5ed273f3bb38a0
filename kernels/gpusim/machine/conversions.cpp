// SPDX-License-Identifier: MIT
// cvt (PTX ISA 9.7.9 "cvt", "cvt.pack"): operand 0 takes the result. Registers have the width of
// their type, but 8-bit numbers stand in 16 bits; the decoder inserts what makes others fit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

#include "cluster.h"
#include "formats.h"

namespace gpusim {
namespace {

// Modifiers of a conversion.
constexpr std::int64_t kRoundingBits = 3;
constexpr std::int64_t kRelu = 4;
constexpr std::int64_t kSatfinite = 8;
constexpr std::int64_t kFtz = 16;
constexpr std::int64_t kSat = 32;

Rounding rounding_of(const Step& step) {
  return static_cast<Rounding>(step.op.modifiers & kRoundingBits);
}

template <class D, class S, class F>
Flow convert(Step& step, F f) {
  D* const d = step.reg<D>(0);
  const S* const a = step.reg<S>(1);
  step.each_lane([&](int lane) { d[lane] = f(a[lane]); });
  return Flow::kNext;
}

// `D` and `S` are numbers, which stand in registers of `DR` and `SR`.
template <class D, class DR, class S, class SR>
Flow integer(Step& step) {
  const bool saturates = (step.op.modifiers & kSat) != 0;
  return convert<DR, SR>(step, [saturates](SR source) {
    const S value = static_cast<S>(source);
    if (saturates) {
      if (std::cmp_less(value, std::numeric_limits<D>::min())) {
        return static_cast<DR>(std::numeric_limits<D>::min());
      }
      if (std::cmp_greater(value, std::numeric_limits<D>::max())) {
        return static_cast<DR>(std::numeric_limits<D>::max());
      }
    }
    return static_cast<DR>(static_cast<D>(value));
  });
}

double rounded(double value, Rounding rounding) {
  switch (rounding) {
    case Rounding::kNearestEven:
      return std::nearbyint(value);
    case Rounding::kZero:
      return std::trunc(value);
    case Rounding::kDown:
      return std::floor(value);
    case Rounding::kUp:
      return std::ceil(value);
  }
  return value;
}

// Out of range becomes the nearest integer there is, NaN 0 (or what chips yield: see cvt's notes).
template <class D, class S>
Flow to_integer(Step& step) {
  const Rounding rounding = rounding_of(step);
  return convert<D, S>(step, [rounding](S value) -> D {
    if (std::isnan(value)) return 0;
    const double whole = rounded(static_cast<double>(value), rounding);
    if (whole <= static_cast<double>(std::numeric_limits<D>::min())) {
      return std::numeric_limits<D>::min();
    }
    if (whole >= static_cast<double>(std::numeric_limits<D>::max())) {
      return std::numeric_limits<D>::max();
    }
    return static_cast<D>(whole);
  });
}

template <class S>
Flow to_float(Step& step) {  // to nearest even
  return convert<float, S>(step, [](S value) { return static_cast<float>(value); });
}

template <class S>
Flow to_double(Step& step) {
  return convert<double, S>(step, [](S value) { return static_cast<double>(value); });
}

Flow float_to_whole_float(Step& step) {
  const Rounding rounding = rounding_of(step);
  return convert<float, float>(
      step, [rounding](float value) { return static_cast<float>(rounded(value, rounding)); });
}

Flow float_to_float(Step& step) {
  const bool saturates = (step.op.modifiers & kSat) != 0;
  const bool flushes = (step.op.modifiers & kFtz) != 0;
  return convert<float, float>(step, [=](float value) {
    if (flushes && std::fabs(value) < std::numeric_limits<float>::min()) {
      value = std::copysign(0.0F, value);
    }
    if (saturates) value = std::isnan(value) ? 0.0F : std::min(std::max(value, 0.0F), 1.0F);
    return value;
  });
}

template <const Format& kFormat>
std::uint32_t narrowed(const Step& step, double value) {
  if ((step.op.modifiers & kRelu) != 0 && value < 0) value = 0;
  return narrow(kFormat, value, rounding_of(step), (step.op.modifiers & kSatfinite) != 0);
}

template <const Format& kFormat, class S>
Flow to_half(Step& step) {
  return convert<std::uint16_t, S>(step, [&step](S value) {
    return static_cast<std::uint16_t>(narrowed<kFormat>(step, static_cast<double>(value)));
  });
}

template <const Format& kFormat>
Flow from_half(Step& step) {
  return convert<float, std::uint16_t>(step,
                                       [](std::uint16_t bits) { return widen(kFormat, bits); });
}

Flow to_tf32(Step& step) {
  return convert<std::uint32_t, float>(step, [&step](float value) {
    return narrowed<kTf32>(step, static_cast<double>(value)) << 13;
  });
}

// Two floats, the first of which goes to the upper half.
template <const Format& kFormat, class D, int kBits>
Flow pack(Step& step) {
  D* const d = step.reg<D>(0);
  const float* const high = step.reg<float>(1);
  const float* const low = step.reg<float>(2);
  step.each_lane([&](int lane) {
    const std::uint32_t upper = narrowed<kFormat>(step, high[lane]);
    const std::uint32_t lower = narrowed<kFormat>(step, low[lane]);
    d[lane] = static_cast<D>(upper << kBits | lower);
  });
  return Flow::kNext;
}

// Two 8-bit numbers to two halves.
template <const Format& kFrom, const Format& kTo>
Flow unpack(Step& step) {
  return convert<std::uint32_t, std::uint16_t>(step, [&step](std::uint16_t both) {
    const auto half = [&](std::uint32_t bits) {
      return narrowed<kTo>(step, static_cast<double>(widen(kFrom, bits)));
    };
    return half(both >> 8) << 16 | half(both & 0xff);
  });
}

// Two halves to two 8-bit numbers.
template <const Format& kFrom, const Format& kTo>
Flow repack(Step& step) {
  return convert<std::uint16_t, std::uint32_t>(step, [&step](std::uint32_t both) {
    const auto byte = [&](std::uint32_t bits) {
      return narrowed<kTo>(step, static_cast<double>(widen(kFrom, bits)));
    };
    return static_cast<std::uint16_t>(byte(both >> 16) << 8 | byte(both & 0xffff));
  });
}

// mov of several registers into one, the first of them lowest. Operands: the result, the parts.
template <class Part, class Whole>
Flow join(Step& step) {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  Whole* const d = step.reg<Whole>(0);
  step.each_lane([&](int lane) {
    Whole whole = 0;
    for (int i = 0; i < kParts; ++i) {
      whole |= static_cast<Whole>(step.reg<Part>(i + 1)[lane])
               << (8 * sizeof(Part) * static_cast<std::size_t>(i));
    }
    d[lane] = whole;
  });
  return Flow::kNext;
}

// mov of one register into several. Operands: the parts, the whole.
template <class Part, class Whole>
Flow split(Step& step) {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  Whole whole[kLanes];
  std::copy_n(step.reg<Whole>(kParts), kLanes, whole);
  for (int i = 0; i < kParts; ++i) {
    if (step.sink(i)) continue;
    Part* const d = step.reg<Part>(i);
    step.each_lane([&](int lane) {
      d[lane] = static_cast<Part>(whole[lane] >> (8 * sizeof(Part) * static_cast<std::size_t>(i)));
    });
  }
  return Flow::kNext;
}

template <class T>
struct Number {
  using Type = T;
  const char* name;
};

template <class T>
using Container =
    std::conditional_t<sizeof(T) == 1,
                       std::conditional_t<std::is_signed_v<T>, std::int16_t, std::uint16_t>, T>;

template <class D, class S>
void add_integer(Registry& registry, Number<D> d, Number<S> s) {
  registry[std::string("cvt.") + d.name + "." + s.name] = integer<D, Container<D>, S, Container<S>>;
}

template <class S, class... D>
void add_integers(Registry& registry, Number<S> s, Number<D>... d) {
  (add_integer(registry, d, s), ...);
}

template <class D>
void add_to_integer(Registry& registry, Number<D> d) {
  registry[std::string("cvt.") + d.name + ".f32"] = to_integer<D, float>;
  registry[std::string("cvt.") + d.name + ".f64"] = to_integer<D, double>;
}

}  // namespace

void register_conversions(Registry& registry) {
  const Number<std::uint8_t> u8{"u8"};
  const Number<std::int8_t> s8{"s8"};
  const Number<std::uint16_t> u16{"u16"};
  const Number<std::int16_t> s16{"s16"};
  const Number<std::uint32_t> u32{"u32"};
  const Number<std::int32_t> s32{"s32"};
  const Number<std::uint64_t> u64{"u64"};
  const Number<std::int64_t> s64{"s64"};
  add_integers(registry, u8, u8, s8, u16, s16, u32, s32, u64, s64);
  add_integers(registry, s8, u8, s8, u16, s16, u32, s32, u64, s64);
  add_integers(registry, u16, u8, s8, u16, s16, u32, s32, u64, s64);
  add_integers(registry, s16, u8, s8, u16, s16, u32, s32, u64, s64);
  add_integers(registry, u32, u8, s8, u16, s16, u32, s32, u64, s64);
  add_integers(registry, s32, u8, s8, u16, s16, u32, s32, u64, s64);
  add_integers(registry, u64, u8, s8, u16, s16, u32, s32, u64, s64);
  add_integers(registry, s64, u8, s8, u16, s16, u32, s32, u64, s64);
  add_to_integer(registry, u16);
  add_to_integer(registry, s16);
  add_to_integer(registry, u32);
  add_to_integer(registry, s32);
  add_to_integer(registry, u64);
  add_to_integer(registry, s64);
  registry["join.16.32"] = join<std::uint16_t, std::uint32_t>;
  registry["join.16.64"] = join<std::uint16_t, std::uint64_t>;
  registry["join.32.64"] = join<std::uint32_t, std::uint64_t>;
  registry["split.32.16"] = split<std::uint16_t, std::uint32_t>;
  registry["split.64.16"] = split<std::uint16_t, std::uint64_t>;
  registry["split.64.32"] = split<std::uint32_t, std::uint64_t>;
  registry["cvt.f32.u16"] = to_float<std::uint16_t>;
  registry["cvt.f32.s16"] = to_float<std::int16_t>;
  registry["cvt.f32.u32"] = to_float<std::uint32_t>;
  registry["cvt.f32.s32"] = to_float<std::int32_t>;
  registry["cvt.f32.u64"] = to_float<std::uint64_t>;
  registry["cvt.f32.s64"] = to_float<std::int64_t>;
  registry["cvt.f32.f64"] = to_float<double>;
  registry["cvt.f64.u32"] = to_double<std::uint32_t>;
  registry["cvt.f64.s32"] = to_double<std::int32_t>;
  registry["cvt.f64.u64"] = to_double<std::uint64_t>;
  registry["cvt.f64.s64"] = to_double<std::int64_t>;
  registry["cvt.f64.f32"] = to_double<float>;
  registry["cvt.f32.f32"] = float_to_float;
  registry["cvt.whole.f32.f32"] = float_to_whole_float;
  registry["cvt.f16.f32"] = to_half<kF16, float>;
  registry["cvt.bf16.f32"] = to_half<kBf16, float>;
  registry["cvt.f16.s32"] = to_half<kF16, std::int32_t>;
  registry["cvt.bf16.s32"] = to_half<kBf16, std::int32_t>;
  registry["cvt.f32.f16"] = from_half<kF16>;
  registry["cvt.f32.bf16"] = from_half<kBf16>;
  registry["cvt.tf32.f32"] = to_tf32;
  registry["cvt.f16x2.f32"] = pack<kF16, std::uint32_t, 16>;
  registry["cvt.bf16x2.f32"] = pack<kBf16, std::uint32_t, 16>;
  registry["cvt.e4m3x2.f32"] = pack<kE4m3, std::uint16_t, 8>;
  registry["cvt.e5m2x2.f32"] = pack<kE5m2, std::uint16_t, 8>;
  registry["cvt.f16x2.e4m3x2"] = unpack<kE4m3, kF16>;
  registry["cvt.f16x2.e5m2x2"] = unpack<kE5m2, kF16>;
  registry["cvt.e4m3x2.f16x2"] = repack<kF16, kE4m3>;
  registry["cvt.e5m2x2.f16x2"] = repack<kF16, kE5m2>;
}

}  // namespace gpusim
