// SPDX-License-Identifier: MIT
// Integer, logic, shift, comparison and floating-point instructions (PTX ISA 9.7.1 to 9.7.8).
// Operand 0 takes the result; a predicate is a mask.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cluster.h"
#include "formats.h"

namespace gpusim {
namespace {

using std::int16_t;
using std::int32_t;
using std::int64_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;

// d = F(a, ...) in every lane.
template <class D, class F, class... S, std::size_t... I>
void map_lanes(Step& step, std::index_sequence<I...> /*operands*/) {
  if (step.sink(0)) return;
  D* const d = step.reg<D>(0);
  const F f;
  const std::tuple<const S*...> sources(step.reg<S>(static_cast<int>(I) + 1)...);
  if (step.mask == kAllLanes) {
    for (int lane = 0; lane < kLanes; ++lane) d[lane] = f(std::get<I>(sources)[lane]...);
  } else {
    for (Mask rest = step.mask; rest != 0; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      d[lane] = f(std::get<I>(sources)[lane]...);
    }
  }
}

template <class D, class F, class... S>
Flow map(Step& step) {
  map_lanes<D, F, S...>(step, std::index_sequence_for<S...>());
  return Flow::kNext;
}

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

void set_predicate(Step& step, int operand, Mask value) {
  if (step.sink(operand)) return;
  Mask& at = step.predicate(operand);
  at = (at & ~step.mask) | (value & step.mask);
}

// Modifiers of setp: how the result is combined with predicate operand 4, which may be negated.
enum : int64_t { kAnd = 1, kOr = 2, kXor = 3, kNegated = 4 };

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

template <class F>
Flow predicate_logic(Step& step) {
  const F f;
  set_predicate(step, 0, f(step.predicate(1), step.predicate(2)));
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

// Integers wrap around: computed without sign.
template <class T>
using Unsigned = std::make_unsigned_t<T>;
// Wide enough that no product of two overflows (16-bit operands would be promoted to int).
template <class T>
using Wrapping = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
struct Add {
  T operator()(T a, T b) const { return static_cast<T>(Wrapping<T>(a) + Wrapping<T>(b)); }
};
template <class T>
struct Sub {
  T operator()(T a, T b) const { return static_cast<T>(Wrapping<T>(a) - Wrapping<T>(b)); }
};
template <class T>
struct MulLo {
  T operator()(T a, T b) const { return static_cast<T>(Wrapping<T>(a) * Wrapping<T>(b)); }
};
template <class T>
struct MadLo {
  T operator()(T a, T b, T c) const {
    return static_cast<T>(Wrapping<T>(a) * Wrapping<T>(b) + Wrapping<T>(c));
  }
};
__extension__ typedef __int128 Int128;
__extension__ typedef unsigned __int128 UInt128;
template <class T>
using Twice = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
    std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                       std::conditional_t<std::is_signed_v<T>, Int128, UInt128>>>;
template <class T>
struct MulHi {
  T operator()(T a, T b) const {
    return static_cast<T>((Twice<T>(a) * Twice<T>(b)) >> (8 * sizeof(T)));
  }
};
template <class T>
struct MadHi {
  T operator()(T a, T b, T c) const { return Add<T>()(MulHi<T>()(a, b), c); }
};
template <class T>
struct MulWide {
  Twice<T> operator()(T a, T b) const { return Twice<T>(a) * Twice<T>(b); }
};
template <class T>
struct MadWide {
  Twice<T> operator()(T a, T b, Twice<T> c) const {
    return Add<Twice<T>>()(Twice<T>(a) * Twice<T>(b), c);
  }
};
template <class T>
struct Div {
  T operator()(T a, T b) const {
    if (b == 0) return static_cast<T>(-1);  // machine-specific in the ISA; what chips yield
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return static_cast<T>(0 - Wrapping<T>(a));
    }
    return static_cast<T>(a / b);
  }
};
template <class T>
struct Rem {
  T operator()(T a, T b) const {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return 0;
    }
    return static_cast<T>(a % b);
  }
};
template <class T>
struct Min {
  T operator()(T a, T b) const { return std::min(a, b); }
};
template <class T>
struct Max {
  T operator()(T a, T b) const { return std::max(a, b); }
};
template <class T>
struct Neg {
  T operator()(T a) const { return static_cast<T>(0 - Wrapping<T>(a)); }
};
template <class T>
struct Abs {
  T operator()(T a) const { return a < 0 ? static_cast<T>(0 - Wrapping<T>(a)) : a; }
};
template <class T>
struct And {
  T operator()(T a, T b) const { return a & b; }
};
template <class T>
struct Or {
  T operator()(T a, T b) const { return a | b; }
};
template <class T>
struct Xor {
  T operator()(T a, T b) const { return a ^ b; }
};
template <class T>
struct Not {
  T operator()(T a) const { return static_cast<T>(~a); }
};
template <class T>
struct Move {
  T operator()(T a) const { return a; }
};
template <class T>
struct Shl {
  T operator()(T a, uint32_t n) const {
    return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(Wrapping<T>(a) << n);
  }
};
template <class T>
struct Shr {
  T operator()(T a, uint32_t n) const {
    const uint32_t bits = 8 * sizeof(T);
    if constexpr (std::is_signed_v<T>) return static_cast<T>(a >> std::min(n, bits - 1));
    return n >= bits ? T{0} : static_cast<T>(a >> n);
  }
};

// PTX ISA 9.7.8 "lop3": the table is a constant operand.
struct Lop3 {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c, uint32_t table) const {
    uint32_t result = 0;
    for (uint32_t row = 0; row < 8; ++row) {
      if ((table >> row & 1) == 0) continue;
      result |= ((row & 4) != 0 ? a : ~a) & ((row & 2) != 0 ? b : ~b) & ((row & 1) != 0 ? c : ~c);
    }
    return result;
  }
};

struct ShfLeftWrap {
  uint32_t operator()(uint32_t low, uint32_t high, uint32_t n) const {
    const uint64_t both = uint64_t{high} << 32 | low;
    return static_cast<uint32_t>(both << (n & 31) >> 32);
  }
};
struct ShfRightWrap {
  uint32_t operator()(uint32_t low, uint32_t high, uint32_t n) const {
    const uint64_t both = uint64_t{high} << 32 | low;
    return static_cast<uint32_t>(both >> (n & 31));
  }
};
struct ShfLeftClamp {
  uint32_t operator()(uint32_t low, uint32_t high, uint32_t n) const {
    const uint64_t both = uint64_t{high} << 32 | low;
    return static_cast<uint32_t>(both << std::min(n, 32U) >> 32);
  }
};
struct ShfRightClamp {
  uint32_t operator()(uint32_t low, uint32_t high, uint32_t n) const {
    const uint64_t both = uint64_t{high} << 32 | low;
    return static_cast<uint32_t>(both >> std::min(n, 32U));
  }
};

template <class T>
struct Bfe {
  T operator()(T a, uint32_t position, uint32_t length) const {
    const uint32_t bits = 8 * sizeof(T);
    const uint32_t from = position & 0xff;
    const uint32_t count = length & 0xff;
    if (count == 0) return 0;
    const bool negative =
        std::is_signed_v<T> && (Unsigned<T>(a) >> std::min(from + count - 1, bits - 1) & 1) != 0;
    Unsigned<T> field = from >= bits ? 0 : Unsigned<T>(a) >> from;
    if (count < bits) {
      const Unsigned<T> kept = (Unsigned<T>{1} << count) - 1;
      field = (field & kept) | (negative ? ~kept : 0);
    }
    if (negative && from < bits && bits - from < count) field |= ~(~Unsigned<T>{0} >> from);
    if (negative && from >= bits) field = ~Unsigned<T>{0};
    return static_cast<T>(field);
  }
};

template <class T>
struct Bfi {
  T operator()(T a, T b, uint32_t position, uint32_t length) const {
    const uint32_t bits = 8 * sizeof(T);
    const uint32_t from = position & 0xff;
    const uint32_t count = length & 0xff;
    if (count == 0 || from >= bits) return b;
    const T ones = count >= bits ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << count) - 1);
    const T mask = static_cast<T>(ones << from);
    return static_cast<T>((b & ~mask) | (static_cast<T>(a << from) & mask));
  }
};

template <class T>
struct Popc {
  uint32_t operator()(T a) const { return static_cast<uint32_t>(std::popcount(a)); }
};
template <class T>
struct Clz {
  uint32_t operator()(T a) const { return static_cast<uint32_t>(std::countl_zero(a)); }
};
template <class T>
struct Bfind {
  uint32_t operator()(T a) const {
    Unsigned<T> value = Unsigned<T>(a);
    if constexpr (std::is_signed_v<T>) {
      if (a < 0) value = static_cast<Unsigned<T>>(~value);
    }
    return value == 0 ? ~uint32_t{0}
                      : static_cast<uint32_t>(8 * sizeof(T) - 1 - std::countl_zero(value));
  }
};
template <class T>
struct Brev {
  T operator()(T a) const {
    T result = 0;
    for (std::size_t bit = 0; bit < 8 * sizeof(T); ++bit) {
      result = static_cast<T>(result << 1 | (a >> bit & 1));
    }
    return result;
  }
};

// PTX ISA 9.7.9 "prmt", its default mode.
struct Prmt {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t selector) const {
    const uint64_t bytes = uint64_t{b} << 32 | a;
    uint32_t result = 0;
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t choice = selector >> (4 * i) & 0xf;
      auto byte = static_cast<uint32_t>(bytes >> (8 * (choice & 7)) & 0xff);
      if ((choice & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;
      result |= byte << (8 * i);
    }
    return result;
  }
};

// Floating point.

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

template <class T>
struct Plus {
  T operator()(T a, T b) const { return a + b; }
};
template <class T>
struct Minus {
  T operator()(T a, T b) const { return a - b; }
};
template <class T>
struct Times {
  T operator()(T a, T b) const { return a * b; }
};
template <class T>
struct Over {
  T operator()(T a, T b) const { return a / b; }
};
struct Fma32 {
  // One rounding: the product is exact in double; the sum is rounded to odd there, which keeps the
  // second rounding from seeing a tie that is none (Boldo and Melquiond, 2008).
  float operator()(float a, float b, float c) const {
    const double product = static_cast<double>(a) * b;
    const double sum = product + c;
    const double c_part = sum - product;
    const double error = (product - (sum - c_part)) + (c - c_part);
    const auto bits = std::bit_cast<uint64_t>(sum);
    if (error != 0 && (bits & 1) == 0 && std::isfinite(sum)) {
      const bool outward = (error > 0) == (sum > 0);
      return static_cast<float>(std::bit_cast<double>(outward ? bits + 1 : bits - 1));
    }
    return static_cast<float>(sum);
  }
};
struct Fma64 {
  double operator()(double a, double b, double c) const { return std::fma(a, b, c); }
};
// Of two numbers; NaN only if both are. -0 is less than +0.
template <class T>
struct FloatMin {
  T operator()(T a, T b) const {
    if (a == b) return std::signbit(a) ? a : b;
    return std::fmin(a, b);
  }
};
template <class T>
struct FloatMax {
  T operator()(T a, T b) const {
    if (a == b) return std::signbit(a) ? b : a;
    return std::fmax(a, b);
  }
};
template <class F, class T>
struct OrNan {  // .NaN: NaN if one is
  T operator()(T a, T b) const {
    return std::isnan(a) || std::isnan(b) ? std::numeric_limits<T>::quiet_NaN() : F()(a, b);
  }
};
template <class F, class T>
struct Three {
  T operator()(T a, T b, T c) const { return F()(F()(a, b), c); }
};
template <class T>
struct FloatNeg {
  T operator()(T a) const { return -a; }
};
template <class T>
struct FloatAbs {
  T operator()(T a) const { return std::fabs(a); }
};
template <class T>
struct Copysign {  // PTX: the sign of a on the magnitude of b
  T operator()(T a, T b) const { return std::copysign(b, a); }
};
// The .approx functions are exact here, but for the last rounding.
struct Ex2 {
  float operator()(float a) const { return static_cast<float>(std::exp2(static_cast<double>(a))); }
};
struct Lg2 {
  float operator()(float a) const { return static_cast<float>(std::log2(static_cast<double>(a))); }
};
struct Sin {
  float operator()(float a) const { return static_cast<float>(std::sin(static_cast<double>(a))); }
};
struct Cos {
  float operator()(float a) const { return static_cast<float>(std::cos(static_cast<double>(a))); }
};
struct Tanh {
  float operator()(float a) const { return static_cast<float>(std::tanh(static_cast<double>(a))); }
};
template <class T>
struct Rcp {
  T operator()(T a) const { return T{1} / a; }
};
template <class T>
struct Sqrt {
  T operator()(T a) const { return std::sqrt(a); }
};
struct Rsqrt {
  float operator()(float a) const {
    return static_cast<float>(1.0 / std::sqrt(static_cast<double>(a)));
  }
};

// Two floats in 64 bits, two halves in 32.
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
template <bool kBrain>
struct HalfNumber {
  static float widened(uint16_t bits) { return kBrain ? from_bf16(bits) : from_f16(bits); }
  static uint16_t rounded(double value) {
    return static_cast<uint16_t>(
        narrow(kBrain ? kBf16 : kF16, value, Rounding::kNearestEven, false));
  }
};
template <class F, bool kBrain>
struct OnHalf {
  template <class... S>
  uint16_t operator()(S... sources) const {
    using Half = HalfNumber<kBrain>;
    return Half::rounded(F()(static_cast<double>(Half::widened(sources))...));
  }
};
template <class F, bool kBrain>
struct OnHalfPair {
  template <class... S>
  uint32_t operator()(S... sources) const {
    const OnHalf<F, kBrain> f;
    const uint32_t low = f(static_cast<uint16_t>(sources & 0xffff)...);
    const uint32_t high = f(static_cast<uint16_t>(sources >> 16)...);
    return high << 16 | low;
  }
};
template <class F>
struct InDouble {
  template <class... S>
  double operator()(S... sources) const {
    return F()(sources...);
  }
};

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

template <class T>
void register_integer(Registry& registry, const std::string& type) {
  const auto add = [&](const char* name, Handler handler) { registry[name + type] = handler; };
  add("add.", map<T, Add<T>, T, T>);
  add("sub.", map<T, Sub<T>, T, T>);
  add("mul.lo.", map<T, MulLo<T>, T, T>);
  add("mul.hi.", map<T, MulHi<T>, T, T>);
  add("mad.lo.", map<T, MadLo<T>, T, T, T>);
  add("mad.hi.", map<T, MadHi<T>, T, T, T>);
  if constexpr (sizeof(T) < 8) {
    add("mul.wide.", map<Twice<T>, MulWide<T>, T, T>);
    add("mad.wide.", map<Twice<T>, MadWide<T>, T, T, Twice<T>>);
  }
  add("div.", map<T, Div<T>, T, T>);
  add("rem.", map<T, Rem<T>, T, T>);
  add("min.", map<T, Min<T>, T, T>);
  add("max.", map<T, Max<T>, T, T>);
  add("min3.", map<T, Three<Min<T>, T>, T, T, T>);
  add("max3.", map<T, Three<Max<T>, T>, T, T, T>);
  if constexpr (std::is_signed_v<T>) {
    add("neg.", map<T, Neg<T>, T>);
    add("abs.", map<T, Abs<T>, T>);
  }
  add("shr.", map<T, Shr<T>, T, uint32_t>);
  add("setp.eq.", setp<Eq<T>, T>);
  add("setp.ne.", setp<Ne<T>, T>);
  add("setp.lt.", setp<Lt<T>, T>);
  add("setp.le.", setp<Le<T>, T>);
  add("setp.gt.", setp<Gt<T>, T>);
  add("setp.ge.", setp<Ge<T>, T>);
  if constexpr (sizeof(T) >= 4) {
    add("bfe.", map<T, Bfe<T>, T, uint32_t, uint32_t>);
    add("bfind.", map<uint32_t, Bfind<T>, T>);
  }
}

template <class T>
void register_bits(Registry& registry, const std::string& type) {
  const auto add = [&](const char* name, Handler handler) { registry[name + type] = handler; };
  add("and.", map<T, And<T>, T, T>);
  add("or.", map<T, Or<T>, T, T>);
  add("xor.", map<T, Xor<T>, T, T>);
  add("not.", map<T, Not<T>, T>);
  add("mov.", map<T, Move<T>, T>);
  add("shl.", map<T, Shl<T>, T, uint32_t>);
  add("selp.", selp<T>);
  add("setp.eq.", setp<Eq<T>, T>);
  add("setp.ne.", setp<Ne<T>, T>);
  if constexpr (sizeof(T) >= 4) {
    add("bfi.", map<T, Bfi<T>, T, T, uint32_t, uint32_t>);
    add("popc.", map<uint32_t, Popc<T>, T>);
    add("clz.", map<uint32_t, Clz<T>, T>);
    add("brev.", map<T, Brev<T>, T>);
  }
}

template <class T>
void register_comparisons(Registry& registry, const std::string& type) {
  const auto add = [&](const char* name, Handler handler) {
    registry[std::string("setp.") + name + "." + type] = handler;
  };
  add("eq", setp<Eq<T>, T>);
  add("ne", setp<Ne<T>, T>);
  add("lt", setp<Lt<T>, T>);
  add("le", setp<Le<T>, T>);
  add("gt", setp<Gt<T>, T>);
  add("ge", setp<Ge<T>, T>);
  add("equ", setp<Unordered<Eq<T>, T>, T>);
  add("neu", setp<Unordered<Ne<T>, T>, T>);
  add("ltu", setp<Unordered<Lt<T>, T>, T>);
  add("leu", setp<Unordered<Le<T>, T>, T>);
  add("gtu", setp<Unordered<Gt<T>, T>, T>);
  add("geu", setp<Unordered<Ge<T>, T>, T>);
  add("num", setp<BothNumbers<T>, T>);
  add("nan", setp<EitherNan<T>, T>);
}

// f32 instructions come plain, with .ftz, and saturated.
template <class F, class... S>
void register_f32(Registry& registry, const std::string& name) {
  registry[name + ".f32"] = map<float, F, S...>;
  registry[name + ".ftz.f32"] = map<float, Ftz<F>, S...>;
  registry[name + ".sat.f32"] = map<float, Saturated<F>, S...>;
  registry[name + ".ftz.sat.f32"] = map<float, Saturated<Ftz<F>>, S...>;
}

template <class F, bool kBrain, class S16, class S32, std::size_t... I>
void add_half(Registry& registry, const std::string& name, std::index_sequence<I...> /*sources*/) {
  const std::string type = kBrain ? "bf16" : "f16";
  const auto same16 = []<std::size_t>() -> S16 { return {}; };
  const auto same32 = []<std::size_t>() -> S32 { return {}; };
  registry[name + "." + type] =
      map<uint16_t, OnHalf<F, kBrain>, decltype(same16.template operator()<I>())...>;
  registry[name + "." + type + "x2"] =
      map<uint32_t, OnHalfPair<F, kBrain>, decltype(same32.template operator()<I>())...>;
}

template <class F, std::size_t kSources>
void register_half(Registry& registry, const std::string& name) {
  add_half<F, true, uint16_t, uint32_t>(registry, name, std::make_index_sequence<kSources>());
  add_half<F, false, uint16_t, uint32_t>(registry, name, std::make_index_sequence<kSources>());
}

template <class F, class... S>
void register_f32x2(Registry& registry, const std::string& name) {
  registry[name + ".f32x2"] = map<FloatPair, Pairwise<F>, S...>;
  registry[name + ".ftz.f32x2"] = map<FloatPair, Pairwise<Ftz<F>>, S...>;
}

template <class T>
void register_float(Registry& registry, const std::string& type) {
  registry["add." + type] = map<T, Plus<T>, T, T>;
  registry["sub." + type] = map<T, Minus<T>, T, T>;
  registry["mul." + type] = map<T, Times<T>, T, T>;
  registry["div." + type] = map<T, Over<T>, T, T>;
  registry["min." + type] = map<T, FloatMin<T>, T, T>;
  registry["max." + type] = map<T, FloatMax<T>, T, T>;
  registry["neg." + type] = map<T, FloatNeg<T>, T>;
  registry["abs." + type] = map<T, FloatAbs<T>, T>;
  registry["copysign." + type] = map<T, Copysign<T>, T, T>;
  registry["rcp." + type] = map<T, Rcp<T>, T>;
  registry["sqrt." + type] = map<T, Sqrt<T>, T>;
  register_comparisons<T>(registry, type);
}

}  // namespace

void register_arithmetic(Registry& registry) {
  register_integer<uint16_t>(registry, "u16");
  register_integer<int16_t>(registry, "s16");
  register_integer<uint32_t>(registry, "u32");
  register_integer<int32_t>(registry, "s32");
  register_integer<uint64_t>(registry, "u64");
  register_integer<int64_t>(registry, "s64");
  register_bits<uint16_t>(registry, "b16");
  register_bits<uint32_t>(registry, "b32");
  register_bits<uint64_t>(registry, "b64");
  registry["shr.b16"] = map<uint16_t, Shr<uint16_t>, uint16_t, uint32_t>;
  registry["shr.b32"] = map<uint32_t, Shr<uint32_t>, uint32_t, uint32_t>;
  registry["shr.b64"] = map<uint64_t, Shr<uint64_t>, uint64_t, uint32_t>;
  registry["and.pred"] = predicate_logic<And<Mask>>;
  registry["or.pred"] = predicate_logic<Or<Mask>>;
  registry["xor.pred"] = predicate_logic<Xor<Mask>>;
  registry["not.pred"] = predicate_not;
  registry["mov.pred"] = predicate_move;
  registry["selp.pred"] = selp_predicate;
  registry["lop3.b32"] = map<uint32_t, Lop3, uint32_t, uint32_t, uint32_t, uint32_t>;
  registry["shf.l.wrap.b32"] = map<uint32_t, ShfLeftWrap, uint32_t, uint32_t, uint32_t>;
  registry["shf.r.wrap.b32"] = map<uint32_t, ShfRightWrap, uint32_t, uint32_t, uint32_t>;
  registry["shf.l.clamp.b32"] = map<uint32_t, ShfLeftClamp, uint32_t, uint32_t, uint32_t>;
  registry["shf.r.clamp.b32"] = map<uint32_t, ShfRightClamp, uint32_t, uint32_t, uint32_t>;
  registry["prmt.b32"] = map<uint32_t, Prmt, uint32_t, uint32_t, uint32_t>;

  register_float<float>(registry, "f32");
  register_float<double>(registry, "f64");
  register_f32<Plus<float>, float, float>(registry, "add");
  register_f32<Minus<float>, float, float>(registry, "sub");
  register_f32<Times<float>, float, float>(registry, "mul");
  register_f32<Over<float>, float, float>(registry, "div");
  register_f32<Fma32, float, float, float>(registry, "fma");
  registry["fma.f64"] = map<double, Fma64, double, double, double>;
  register_f32<FloatMin<float>, float, float>(registry, "min");
  register_f32<FloatMax<float>, float, float>(registry, "max");
  register_f32<OrNan<FloatMin<float>, float>, float, float>(registry, "min.nan");
  register_f32<OrNan<FloatMax<float>, float>, float, float>(registry, "max.nan");
  register_f32<Three<FloatMin<float>, float>, float, float, float>(registry, "min3");
  register_f32<Three<FloatMax<float>, float>, float, float, float>(registry, "max3");
  register_f32<Three<OrNan<FloatMin<float>, float>, float>, float, float, float>(registry,
                                                                                 "min3.nan");
  register_f32<Three<OrNan<FloatMax<float>, float>, float>, float, float, float>(registry,
                                                                                 "max3.nan");
  register_f32<FloatNeg<float>, float>(registry, "neg");
  register_f32<FloatAbs<float>, float>(registry, "abs");
  register_f32<Ex2, float>(registry, "ex2");
  register_f32<Lg2, float>(registry, "lg2");
  register_f32<Sin, float>(registry, "sin");
  register_f32<Cos, float>(registry, "cos");
  register_f32<Tanh, float>(registry, "tanh");
  register_f32<Rcp<float>, float>(registry, "rcp");
  register_f32<Sqrt<float>, float>(registry, "sqrt");
  register_f32<Rsqrt, float>(registry, "rsqrt");
  register_f32x2<Plus<float>, FloatPair, FloatPair>(registry, "add");
  register_f32x2<Minus<float>, FloatPair, FloatPair>(registry, "sub");
  register_f32x2<Times<float>, FloatPair, FloatPair>(registry, "mul");
  register_f32x2<Fma32, FloatPair, FloatPair, FloatPair>(registry, "fma");
  register_half<Plus<double>, 2>(registry, "add");
  register_half<Minus<double>, 2>(registry, "sub");
  register_half<Times<double>, 2>(registry, "mul");
  register_half<Fma64, 3>(registry, "fma");
  register_half<FloatMin<double>, 2>(registry, "min");
  register_half<FloatMax<double>, 2>(registry, "max");
  register_half<OrNan<FloatMin<double>, double>, 2>(registry, "min.nan");
  register_half<OrNan<FloatMax<double>, double>, 2>(registry, "max.nan");
  register_half<FloatNeg<double>, 1>(registry, "neg");
  register_half<FloatAbs<double>, 1>(registry, "abs");
}

}  // namespace gpusim
