// SPDX-License-Identifier: MIT
// Arithmetic of f32, f64 and pairs of f32 (PTX ISA 9.7.3). The .approx functions are exact here,
// but for the last rounding.
#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "floating.h"
#include "lanes.h"

namespace gpusim {
namespace {

// .ftz: subnormal inputs and results are zero of the same sign.
inline float flushed(float value) {
  return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0F, value) : value;
}
template <class F>
struct Ftz {
  template <class... S>
  float operator()(S... sources) const {
    return flushed(F()(flushed(sources)...));
  }
};
template <class F>
struct Saturated {
  template <class... S>
  float operator()(S... sources) const {
    const float value = F()(sources...);
    return std::isnan(value) ? 0.0F : std::clamp(value, 0.0F, 1.0F);
  }
};
// A NaN that an f32 instruction makes is 0x7fffffff (PTX ISA 9.7.3).
template <class F>
struct Canonical {
  template <class... S>
  float operator()(S... sources) const {
    const float value = F()(sources...);
    return std::isnan(value) ? std::bit_cast<float>(0x7fffffffU) : value;
  }
};

struct Fused32 {
  float operator()(float a, float b, float c) const {
    return static_cast<float>(FusedToOdd()(a, b, c));
  }
};
template <class T>
struct Copysign {  // PTX: the sign of a on the magnitude of b
  T operator()(T a, T b) const { return std::copysign(b, a); }
};
// div.approx: a * (1 / b), where 1 / b is zero if it is subnormal.
struct DivApprox {
  float operator()(float a, float b) const {
    const float quotient = std::fabs(b) > 0x1p126F ? a * std::copysign(0.0F, b) : a / b;
    return quotient;
  }
};
template <double (*kFunction)(double)>
struct InDouble {
  float operator()(float a) const { return static_cast<float>(kFunction(static_cast<double>(a))); }
};
inline double reciprocal_root(double a) {
  return 1.0 / std::sqrt(a);
}
template <class T>
struct Rcp {
  T operator()(T a) const { return T{1} / a; }
};
template <class T>
struct Sqrt {
  T operator()(T a) const { return std::sqrt(a); }
};

// PTX ISA 9.7.3.14 and 9.7.3.17: of the upper 32 bits of a, the upper 32 bits.
template <class F>
struct Gross {
  double operator()(double a) const { return upper(F()(upper(a))); }
  static double upper(double value) {
    const auto bits = std::bit_cast<std::uint64_t>(value) & ~std::uint64_t{0xffffffff};
    const double kept = std::bit_cast<double>(bits);
    if (std::isnan(value)) return std::numeric_limits<double>::quiet_NaN();
    const bool subnormal = std::fabs(kept) < std::numeric_limits<double>::min();
    return subnormal ? std::copysign(0.0, kept) : kept;
  }
};
struct ReciprocalRoot {
  double operator()(double a) const { return reciprocal_root(a); }
};

struct FloatPair {
  float low, high;
};
template <class F>
struct Pairwise {
  template <class... S>
  FloatPair operator()(S... sources) const {
    return {F()(sources.low...), F()(sources.high...)};
  }
};

// .rz, .rm, .rp, which the modifiers name (as Rounding counts them): the host rounds so meanwhile.
// The compiler knows nothing of this, so operands are hidden from it until then.
class HostRounding {
 public:
  explicit HostRounding(std::int64_t rounding) {
    constexpr int kModes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    std::fesetround(kModes[rounding]);
  }
  ~HostRounding() { std::fesetround(FE_TONEAREST); }
  HostRounding(const HostRounding&) = delete;
  HostRounding& operator=(const HostRounding&) = delete;
};
template <class F>
struct Hidden {
  template <class T, class... S>
  T operator()(T first, S... others) const {
    return F()(hide(first), hide(others)...);
  }
  template <class T>
  static T hide(T value) {
    volatile T hidden = value;
    return hidden;
  }
};
template <class D, class F, class... S>
Flow directed(Step& step) {
  const HostRounding rounding(step.op.modifiers);
  return map<D, F, S...>(step);
}

// f32 instructions come plain, with .ftz, and saturated.
template <class F, class... S>
void add_f32(Registry& registry, const std::string& name) {
  registry[name + ".f32"] = map<float, Canonical<F>, S...>;
  registry[name + ".ftz.f32"] = map<float, Canonical<Ftz<F>>, S...>;
  registry[name + ".sat.f32"] = map<float, Saturated<F>, S...>;
  registry[name + ".ftz.sat.f32"] = map<float, Saturated<Ftz<F>>, S...>;
}
template <class F, class... S>
void add_directed_f32(Registry& registry, const std::string& name) {
  using H = Hidden<F>;
  registry[name + ".directed.f32"] = directed<float, Canonical<H>, S...>;
  registry[name + ".directed.ftz.f32"] = directed<float, Canonical<Ftz<H>>, S...>;
  registry[name + ".directed.sat.f32"] = directed<float, Saturated<H>, S...>;
  registry[name + ".directed.ftz.sat.f32"] = directed<float, Saturated<Ftz<H>>, S...>;
}
template <class F, class Exact, class... S>
void add_f32x2(Registry& registry, const std::string& name) {
  using H = Hidden<Exact>;
  registry[name + ".f32x2"] = map<FloatPair, Pairwise<Canonical<F>>, S...>;
  registry[name + ".ftz.f32x2"] = map<FloatPair, Pairwise<Canonical<Ftz<F>>>, S...>;
  registry[name + ".directed.f32x2"] = directed<FloatPair, Pairwise<Canonical<H>>, S...>;
  registry[name + ".directed.ftz.f32x2"] = directed<FloatPair, Pairwise<Canonical<Ftz<H>>>, S...>;
}
template <class F, class... S>
void add_f64(Registry& registry, const std::string& name) {
  registry[name + ".f64"] = map<double, F, S...>;
  registry[name + ".directed.f64"] = directed<double, Hidden<F>, S...>;
}

template <template <class> class F>
void add_binary(Registry& registry, const std::string& name) {
  add_f32<F<float>, float, float>(registry, name);
  add_directed_f32<F<float>, float, float>(registry, name);
  add_f64<F<double>, double, double>(registry, name);
}
template <template <class> class F>
void add_unary(Registry& registry, const std::string& name) {
  add_f32<F<float>, float>(registry, name);
  add_directed_f32<F<float>, float>(registry, name);
  add_f64<F<double>, double>(registry, name);
}

// min and max: of two numbers or three, of numbers or magnitudes.
template <class F>
void add_choice(Registry& registry, const std::string& name) {
  add_f32<F, float, float>(registry, name);
  add_f32<XorSign<F, float>, float, float>(registry, name + ".xorsign");
  add_f32<Three<F, float>, float, float, float>(registry, name + ".three");
  struct OfMagnitudes {
    float operator()(float a, float b, float c) const {
      return Three<F, float>()(std::fabs(a), std::fabs(b), std::fabs(c));
    }
  };
  add_f32<OfMagnitudes, float, float, float>(registry, name + ".three.abs");
}

}  // namespace

void register_floats(Registry& registry) {
  add_binary<Plus>(registry, "add");
  add_binary<Minus>(registry, "sub");
  add_binary<Times>(registry, "mul");
  add_binary<Over>(registry, "div");
  add_unary<Rcp>(registry, "rcp");
  add_unary<Sqrt>(registry, "sqrt");
  add_f32<Fused32, float, float, float>(registry, "fma");
  add_directed_f32<Fused<float>, float, float, float>(registry, "fma");
  add_f64<Fused<double>, double, double, double>(registry, "fma");
  add_f32x2<Plus<float>, Plus<float>, FloatPair, FloatPair>(registry, "add");
  add_f32x2<Minus<float>, Minus<float>, FloatPair, FloatPair>(registry, "sub");
  add_f32x2<Times<float>, Times<float>, FloatPair, FloatPair>(registry, "mul");
  add_f32x2<Fused32, Fused<float>, FloatPair, FloatPair, FloatPair>(registry, "fma");
  add_choice<FloatMin<float>>(registry, "min");
  add_choice<FloatMax<float>>(registry, "max");
  add_choice<OrNan<FloatMin<float>, float>>(registry, "min.nan");
  add_choice<OrNan<FloatMax<float>, float>>(registry, "max.nan");
  registry["min.f64"] = map<double, FloatMin<double>, double, double>;
  registry["max.f64"] = map<double, FloatMax<double>, double, double>;
  add_f32<FloatNeg<float>, float>(registry, "neg");
  add_f32<FloatAbs<float>, float>(registry, "abs");
  registry["neg.f64"] = map<double, FloatNeg<double>, double>;
  registry["abs.f64"] = map<double, FloatAbs<double>, double>;
  registry["rcp.approx.ftz.f64"] = map<double, Gross<Rcp<double>>, double>;
  registry["rsqrt.approx.ftz.f64"] = map<double, Gross<ReciprocalRoot>, double>;
  registry["rsqrt.approx.f64"] = map<double, ReciprocalRoot, double>;
  registry["copysign.f32"] = map<float, Copysign<float>, float, float>;
  registry["copysign.f64"] = map<double, Copysign<double>, double, double>;
  add_f32<DivApprox, float, float>(registry, "div.approx");
  add_f32<InDouble<std::exp2>, float>(registry, "ex2");
  add_f32<InDouble<std::log2>, float>(registry, "lg2");
  add_f32<InDouble<std::sin>, float>(registry, "sin");
  add_f32<InDouble<std::cos>, float>(registry, "cos");
  add_f32<InDouble<std::tanh>, float>(registry, "tanh");
  add_f32<InDouble<reciprocal_root>, float>(registry, "rsqrt");
}

}  // namespace gpusim
