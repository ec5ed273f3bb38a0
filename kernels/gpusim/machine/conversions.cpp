// SPDX-License-Identifier: MIT
// cvt and cvt.pack (PTX ISA 9.7.9.21 and 9.7.9.22): operand 0 takes the result. Registers have the
// width of their type, but 8-bit numbers stand in 16 bits; the decoder inserts what makes others
// fit.
#include <algorithm>
#include <bit>
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
constexpr std::int64_t kWhole = 64;  // to an integer, in a floating-point format

struct How {
  explicit How(const Step& step)
      : rounding(static_cast<Rounding>(step.op.modifiers & kRoundingBits)),
        modifiers(step.op.modifiers) {}
  [[nodiscard]] bool has(std::int64_t modifier) const { return (modifiers & modifier) != 0; }
  Rounding rounding;
  std::int64_t modifiers;
};

template <class D, class S, class F>
Flow convert(Step& step, F f) {
  D* const d = step.reg<D>(0);
  const S* const a = step.reg<S>(1);
  step.each_lane([&](int lane) { d[lane] = f(a[lane]); });
  return Flow::kNext;
}

// Integers to integers.

template <class T>
using Container =
    std::conditional_t<sizeof(T) == 1,
                       std::conditional_t<std::is_signed_v<T>, std::int16_t, std::uint16_t>, T>;

template <class D, class T>
D clamped(T value) {
  if (std::cmp_less(value, std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
  if (std::cmp_greater(value, std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
  return static_cast<D>(value);
}

template <class D, class S>
Flow integer(Step& step) {
  const bool saturates = How(step).has(kSat);
  return convert<Container<D>, Container<S>>(step, [saturates](Container<S> source) {
    const S value = static_cast<S>(source);
    return static_cast<Container<D>>(saturates ? clamped<D>(value) : static_cast<D>(value));
  });
}

// Floating-point formats: how they stand in registers, and their values, which double holds.

template <const Format& kFormat>
struct Half {
  using Bits = std::uint16_t;
  static double read(Bits bits) { return widen(kFormat, bits); }
  template <class T>
  static Bits write(T value, Rounding rounding, bool saturate = false) {
    const auto single = static_cast<float>(value);
    if (rounding == Rounding::kNearestEven && single == value) {
      return static_cast<Bits>(narrow_nearest(kFormat, single, saturate));
    }
    return static_cast<Bits>(narrow(kFormat, value, rounding, saturate));
  }
};
struct Single {
  using Bits = float;
  static double read(float value) { return value; }
  template <class T>
  static float write(T value, Rounding rounding, bool /*saturate*/ = false) {
    if (rounding == Rounding::kNearestEven && !std::isnan(value)) return static_cast<float>(value);
    return std::bit_cast<float>(narrow(kF32, value, rounding, false));
  }
};
struct Double {
  using Bits = double;
  static double read(double value) { return value; }
  template <class T>
  static double write(T value, Rounding rounding, bool /*saturate*/ = false) {
    const auto nearest = static_cast<double>(value);
    const T error = static_cast<T>(nearest) - value;
    const bool down = rounding == Rounding::kDown || (rounding == Rounding::kZero && value > 0);
    const bool up = rounding == Rounding::kUp || (rounding == Rounding::kZero && value < 0);
    if (down && error > 0) return std::nextafter(nearest, -HUGE_VAL);
    if (up && error < 0) return std::nextafter(nearest, HUGE_VAL);
    return nearest;
  }
};

template <class T>
T flushed(T value) {
  return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(T{0}, value) : value;
}

double whole(double value, Rounding rounding) {
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

template <class To, class From>
Flow float_to_float(Step& step) {
  const How how(step);
  return convert<typename To::Bits, typename From::Bits>(step, [how](auto bits) {
    double value = From::read(bits);
    if (std::is_same_v<From, Single> && how.has(kFtz)) value = flushed(value);
    Rounding rounding = how.rounding;
    if (how.has(kWhole)) {
      value = whole(value, rounding);
      rounding = Rounding::kNearestEven;
    }
    if (how.has(kSat)) value = std::isnan(value) ? 0.0 : std::clamp(value, 0.0, 1.0);
    if (how.has(kRelu) && value < 0) value = 0;
    auto result = To::write(value, rounding, how.has(kSatfinite));
    if constexpr (std::is_same_v<To, Single>) {
      if (how.has(kFtz)) result = flushed(result);
    }
    return result;
  });
}

// Out of range becomes the nearest integer there is.
template <class D, class From>
Flow float_to_integer(Step& step) {
  const How how(step);
  return convert<Container<D>, typename From::Bits>(step, [how](auto bits) {
    using Limits = std::numeric_limits<D>;
    const auto integer = [&]() -> D {
      double value = From::read(bits);
      if (std::isnan(value)) {
        if constexpr (!std::is_same_v<From, Double> && sizeof(D) < 8) return 0;
        return static_cast<D>(std::uint64_t{1} << (8 * sizeof(D) - 1));
      }
      if (std::is_same_v<From, Single> && how.has(kFtz)) value = flushed(value);
      value = whole(value, how.rounding);
      if (value <= static_cast<double>(Limits::min())) return Limits::min();
      if (value >= static_cast<double>(Limits::max())) return Limits::max();
      return static_cast<D>(value);
    };
    return static_cast<Container<D>>(integer());
  });
}

template <class To, class S>
Flow integer_to_float(Step& step) {
  const How how(step);
  return convert<typename To::Bits, Container<S>>(step, [how](Container<S> source) {
    // A long double holds 64 bits; it is slow, and seldom needed.
    using Exact = std::conditional_t<sizeof(S) == 8, long double, double>;
    auto value = static_cast<Exact>(static_cast<S>(source));
    if (how.has(kSat)) value = std::clamp<Exact>(value, 0, 1);
    return To::write(value, how.rounding);
  });
}

// The narrow formats, several in a register.

template <const Format& kFormat>
std::uint32_t narrowed(const How& how, float value) {
  if (how.has(kRelu) && value < 0) value = 0;
  if (how.rounding == Rounding::kNearestEven) {
    return narrow_nearest(kFormat, value, how.has(kSatfinite));
  }
  return narrow(kFormat, static_cast<double>(value), how.rounding, how.has(kSatfinite));
}

constexpr std::uint32_t kTf32Nan = 0x7fffffff;
constexpr unsigned kTf32Dropped = 13;  // low bits of an f32 that a tf32 lacks

Flow to_tf32(Step& step) {
  const How how(step);
  return convert<std::uint32_t, float>(step, [&how](float value) {
    return std::isnan(value) ? kTf32Nan : narrowed<kTf32>(how, value) << kTf32Dropped;
  });
}

// .rna: to nearest, and a tie away from zero.
Flow to_tf32_away(Step& step) {
  const How how(step);
  return convert<std::uint32_t, float>(step, [&how](float value) {
    if (std::isnan(value)) return kTf32Nan;
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value) + (1U << (kTf32Dropped - 1));
    const std::uint32_t kept = std::isinf(value) ? std::bit_cast<std::uint32_t>(value)
                                                 : bits >> kTf32Dropped << kTf32Dropped;
    const bool too_large = (kept & kTf32Nan) == kF32.infinity();
    if (!too_large || !how.has(kSatfinite)) return kept;
    return (kept & kF32.sign()) | kTf32.largest() << kTf32Dropped;
  });
}

// Two floats, the first of which goes to the upper half.
template <const Format& kFormat, class D, int kBits>
Flow pack(Step& step) {
  const How how(step);
  D* const d = step.reg<D>(0);
  const float* const high = step.reg<float>(1);
  const float* const low = step.reg<float>(2);
  step.each_lane([&](int lane) {
    const std::uint32_t upper = narrowed<kFormat>(how, high[lane]);
    const std::uint32_t lower = narrowed<kFormat>(how, low[lane]);
    d[lane] = static_cast<D>(upper << kBits | lower);
  });
  return Flow::kNext;
}

// Two narrow numbers, of kBits each, to two halves.
template <const Format& kFrom, const Format& kTo, class S, int kBits>
Flow unpack(Step& step) {
  const How how(step);
  return convert<std::uint32_t, S>(step, [&how](std::uint32_t both) {
    const auto half = [&](std::uint32_t bits) {
      return narrowed<kTo>(how, widen(kFrom, bits & ((1U << kBits) - 1)));
    };
    return half(both >> kBits) << 16 | half(both);
  });
}

// Two halves to two narrow numbers.
template <const Format& kFrom, const Format& kTo, class D, int kBits>
Flow repack(Step& step) {
  const How how(step);
  return convert<D, std::uint32_t>(step, [&how](std::uint32_t both) {
    const auto narrow = [&](std::uint32_t bits) {
      return narrowed<kTo>(how, widen(kFrom, bits & 0xffff));
    };
    return static_cast<D>(narrow(both >> 16) << kBits | narrow(both));
  });
}

// ue8m0: a power of two as the exponent field of an f32, without sign; 255 is NaN. Up (.rp) or
// down (.rz) to one; too large is NaN, or with .satfinite the largest.
std::uint32_t to_power(const How& how, float value) {
  const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(value) & 0x7fffffffU;
  constexpr std::uint32_t kInfinity = 0x7f800000;
  constexpr std::uint32_t kSmallest = 0x00400000;  // 2^-127, which field 0 stands for
  if (magnitude > kInfinity) return 255;
  std::uint32_t field = magnitude >> 23;
  const bool up = how.rounding == Rounding::kUp && (magnitude & 0x7fffff) != 0;
  if (up && magnitude > kSmallest && magnitude < kInfinity) ++field;
  return field == 255 && how.has(kSatfinite) ? 254 : field;
}

Flow pack_powers(Step& step) {
  const How how(step);
  step.each_lane([&](int lane) {
    const std::uint32_t upper = to_power(how, step.reg<float>(1)[lane]);
    step.reg<std::uint16_t>(0)[lane] =
        static_cast<std::uint16_t>(upper << 8 | to_power(how, step.reg<float>(2)[lane]));
  });
  return Flow::kNext;
}

Flow repack_powers(Step& step) {
  const How how(step);
  return convert<std::uint16_t, std::uint32_t>(step, [&how](std::uint32_t both) {
    const auto half = [](std::uint32_t bits) {
      return from_bf16(static_cast<std::uint16_t>(bits));
    };
    return static_cast<std::uint16_t>(to_power(how, half(both >> 16)) << 8 |
                                      to_power(how, half(both)));
  });
}

Flow unpack_powers(Step& step) {
  return convert<std::uint32_t, std::uint16_t>(step, [](std::uint32_t both) {
    const auto half = [](std::uint32_t field) -> std::uint32_t {
      if (field == 255) return kBf16.nan();
      return field == 0 ? 0x40 : field << 7;
    };
    return half(both >> 8 & 255) << 16 | half(both & 255);
  });
}

// Operands: d, a, b, and what fills the upper bits. Numbers of kBits, clamped.
template <int kBits, bool kSigned>
Flow pack_integers(Step& step) {
  constexpr std::int64_t kLeast = kSigned ? -(std::int64_t{1} << (kBits - 1)) : 0;
  constexpr std::int64_t kMost = kLeast + (std::int64_t{1} << kBits) - 1;
  const auto field = [&](std::int32_t value) {
    const auto bits = static_cast<std::uint64_t>(std::clamp<std::int64_t>(value, kLeast, kMost));
    return bits & ((1U << kBits) - 1);
  };
  step.each_lane([&](int lane) {
    const std::uint64_t upper = step.reg<std::uint32_t>(3)[lane];
    const std::uint64_t packed = upper << (2 * kBits) |
                                 field(step.reg<std::int32_t>(1)[lane]) << kBits |
                                 field(step.reg<std::int32_t>(2)[lane]);
    step.reg<std::uint32_t>(0)[lane] = static_cast<std::uint32_t>(packed);
  });
  return Flow::kNext;
}

// Every conversion between these.

template <class Do>
void for_integers(Do act) {
  act.template operator()<std::uint8_t>("u8");
  act.template operator()<std::int8_t>("s8");
  act.template operator()<std::uint16_t>("u16");
  act.template operator()<std::int16_t>("s16");
  act.template operator()<std::uint32_t>("u32");
  act.template operator()<std::int32_t>("s32");
  act.template operator()<std::uint64_t>("u64");
  act.template operator()<std::int64_t>("s64");
}
template <class Do>
void for_floats(Do act) {
  act.template operator()<Half<kF16>>("f16");
  act.template operator()<Half<kBf16>>("bf16");
  act.template operator()<Single>("f32");
  act.template operator()<Double>("f64");
}
std::string cvt(const std::string& to, const std::string& from) {
  return "cvt." + to + "." + from;
}

template <const Format& kFormat, class Bits, int kBits>
void add_narrow(Registry& registry, const std::string& name) {
  registry[cvt(name, "f32")] = pack<kFormat, Bits, kBits>;
  registry[cvt(name, "f16x2")] = repack<kF16, kFormat, Bits, kBits>;
  registry[cvt(name, "bf16x2")] = repack<kBf16, kFormat, Bits, kBits>;
  registry[cvt("f16x2", name)] = unpack<kFormat, kF16, Bits, kBits>;
}

}  // namespace

void register_conversions(Registry& registry) {
  for_integers([&]<class To>(const char* to) {
    for_integers(
        [&]<class From>(const char* from) { registry[cvt(to, from)] = integer<To, From>; });
    for_floats([&]<class From>(const char* from) {
      registry[cvt(to, from)] = float_to_integer<To, From>;
    });
  });
  for_floats([&]<class To>(const char* to) {
    for_integers([&]<class From>(const char* from) {
      registry[cvt(to, from)] = integer_to_float<To, From>;
    });
    for_floats(
        [&]<class From>(const char* from) { registry[cvt(to, from)] = float_to_float<To, From>; });
  });
  registry["cvt.tf32.f32"] = to_tf32;
  registry["cvt.rna.tf32.f32"] = to_tf32_away;
  registry["cvt.f16x2.f32"] = pack<kF16, std::uint32_t, 16>;
  registry["cvt.bf16x2.f32"] = pack<kBf16, std::uint32_t, 16>;
  add_narrow<kE4m3, std::uint16_t, 8>(registry, "e4m3x2");
  add_narrow<kE5m2, std::uint16_t, 8>(registry, "e5m2x2");
  add_narrow<kE2m3, std::uint16_t, 8>(registry, "e2m3x2");
  add_narrow<kE3m2, std::uint16_t, 8>(registry, "e3m2x2");
  add_narrow<kE2m1, std::uint8_t, 4>(registry, "e2m1x2");
  registry["cvt.ue8m0x2.f32"] = pack_powers;
  registry["cvt.ue8m0x2.bf16x2"] = repack_powers;
  registry["cvt.bf16x2.ue8m0x2"] = unpack_powers;
  registry["cvt.pack.u16"] = pack_integers<16, false>;
  registry["cvt.pack.s16"] = pack_integers<16, true>;
  registry["cvt.pack.u8"] = pack_integers<8, false>;
  registry["cvt.pack.s8"] = pack_integers<8, true>;
  registry["cvt.pack.u4"] = pack_integers<4, false>;
  registry["cvt.pack.s4"] = pack_integers<4, true>;
  registry["cvt.pack.u2"] = pack_integers<2, false>;
  registry["cvt.pack.s2"] = pack_integers<2, true>;
}

}  // namespace gpusim
