// SPDX-License-Identifier: MIT
// Arithmetic of f16 and bf16, alone and in pairs (PTX ISA 9.7.4): in double, then rounded once.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "floating.h"
#include "formats.h"
#include "lanes.h"

namespace gpusim {
namespace {

enum : std::uint8_t { kPlain = 0, kFtz = 1, kSat = 2, kRelu = 4, kOob = 8 };
// The NaN that fills what lies outside of a tensor; .oob makes it a zero.
constexpr std::uint16_t kOutside = 0xffff;

// F on numbers of a format, as the modifiers in kHow have it.
template <class F, const Format& kFormat, unsigned kHow>
struct OnHalf {
  template <class... S>
  std::uint16_t operator()(S... sources) const {
    if constexpr ((kHow & kOob) != 0) {
      if (((sources == kOutside) || ...)) return 0;
    }
    double value = F()(read(sources)...);
    if constexpr ((kHow & kSat) != 0) value = std::isnan(value) ? 0.0 : std::clamp(value, 0.0, 1.0);
    if constexpr ((kHow & kRelu) != 0) value = value < 0 ? 0.0 : value;
    return flushed(narrow(kFormat, value, Rounding::kNearestEven, false));
  }
  static double read(std::uint16_t bits) { return widen(kFormat, flushed(bits)); }
  static std::uint16_t flushed(std::uint32_t bits) {
    const std::uint32_t magnitude = bits & kFormat.magnitude();
    const bool subnormal = magnitude < (1U << kFormat.mantissa);
    const bool flush = (kHow & kFtz) != 0 && subnormal;
    return static_cast<std::uint16_t>(flush ? bits & kFormat.sign() : bits);
  }
};
template <class F>
struct OnHalfPair {
  template <class... S>
  std::uint32_t operator()(S... sources) const {
    const std::uint32_t low = F()(static_cast<std::uint16_t>(sources & 0xffff)...);
    const std::uint32_t high = F()(static_cast<std::uint16_t>(sources >> 16)...);
    return high << 16 | low;
  }
};

template <class F, int kSources>
void add_both(Registry& registry, const std::string& name, const std::string& type) {
  using H = std::uint16_t;
  using P = std::uint32_t;
  using Pair = OnHalfPair<F>;
  if constexpr (kSources == 1) {
    registry[name + "." + type] = map<H, F, H>;
    registry[name + "." + type + "x2"] = map<P, Pair, P>;
  } else if constexpr (kSources == 2) {
    registry[name + "." + type] = map<H, F, H, H>;
    registry[name + "." + type + "x2"] = map<P, Pair, P, P>;
  } else {
    registry[name + "." + type] = map<H, F, H, H, H>;
    registry[name + "." + type + "x2"] = map<P, Pair, P, P, P>;
  }
}

template <class F, int kSources>
void add_half(Registry& registry, const std::string& name) {
  add_both<OnHalf<F, kBf16, kPlain>, kSources>(registry, name, "bf16");
  add_both<OnHalf<F, kF16, kPlain>, kSources>(registry, name, "f16");
  add_both<OnHalf<F, kF16, kFtz>, kSources>(registry, name + ".ftz", "f16");
}
template <class F, int kSources>
void add_saturating(Registry& registry, const std::string& name) {
  add_half<F, kSources>(registry, name);
  add_both<OnHalf<F, kF16, kSat>, kSources>(registry, name + ".sat", "f16");
  add_both<OnHalf<F, kF16, kFtz | kSat>, kSources>(registry, name + ".ftz.sat", "f16");
}

template <double (*kFunction)(double)>
struct Of {
  double operator()(double a) const { return kFunction(a); }
};

template <class F>
void add_choice(Registry& registry, const std::string& name) {
  add_half<F, 2>(registry, name);
  add_half<XorSign<F, double>, 2>(registry, name + ".xorsign");
}

}  // namespace

void register_halves(Registry& registry) {
  add_saturating<Plus<double>, 2>(registry, "add");
  add_saturating<Minus<double>, 2>(registry, "sub");
  add_saturating<Times<double>, 2>(registry, "mul");
  add_saturating<FusedToOdd, 3>(registry, "fma");
  add_both<OnHalf<FusedToOdd, kF16, kRelu>, 3>(registry, "fma.relu", "f16");
  add_both<OnHalf<FusedToOdd, kF16, kFtz | kRelu>, 3>(registry, "fma.ftz.relu", "f16");
  add_both<OnHalf<FusedToOdd, kBf16, kRelu>, 3>(registry, "fma.relu", "bf16");
  add_both<OnHalf<FusedToOdd, kF16, kOob>, 3>(registry, "fma.oob", "f16");
  add_both<OnHalf<FusedToOdd, kF16, kOob | kRelu>, 3>(registry, "fma.oob.relu", "f16");
  add_both<OnHalf<FusedToOdd, kBf16, kOob>, 3>(registry, "fma.oob", "bf16");
  add_both<OnHalf<FusedToOdd, kBf16, kOob | kRelu>, 3>(registry, "fma.oob.relu", "bf16");
  add_choice<FloatMin<double>>(registry, "min");
  add_choice<FloatMax<double>>(registry, "max");
  add_choice<OrNan<FloatMin<double>, double>>(registry, "min.nan");
  add_choice<OrNan<FloatMax<double>, double>>(registry, "max.nan");
  add_half<FloatNeg<double>, 1>(registry, "neg");
  add_half<FloatAbs<double>, 1>(registry, "abs");
  add_half<Of<std::tanh>, 1>(registry, "tanh");
  add_half<Of<std::exp2>, 1>(registry, "ex2");
  add_both<OnHalf<Of<std::exp2>, kBf16, kFtz>, 1>(registry, "ex2.ftz", "bf16");
}

}  // namespace gpusim
