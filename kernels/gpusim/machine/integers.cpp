// SPDX-License-Identifier: MIT
// Integer arithmetic, with carries and in packed form (PTX ISA 9.7.1 and 9.7.2).
#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include "lanes.h"
#include "widths.h"

namespace gpusim {
namespace {

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

// .sat: what does not fit becomes the nearest number that does.
inline int32_t clamped(int64_t value) {
  return static_cast<int32_t>(std::clamp<int64_t>(value, std::numeric_limits<int32_t>::min(),
                                                  std::numeric_limits<int32_t>::max()));
}
struct AddSat {
  int32_t operator()(int32_t a, int32_t b) const { return clamped(int64_t{a} + b); }
};
struct SubSat {
  int32_t operator()(int32_t a, int32_t b) const { return clamped(int64_t{a} - b); }
};
struct MadHiSat {
  int32_t operator()(int32_t a, int32_t b, int32_t c) const {
    return clamped(int64_t{MulHi<int32_t>()(a, b)} + c);
  }
};

// PTX ISA 9.7.1.5: bits 0 to 31 (lo) or 16 to 47 (hi) of the product of the low 24 bits.
template <class T>
int64_t product24(T a, T b) {
  const auto low24 = [](T value) {
    return int64_t{static_cast<T>(static_cast<T>(static_cast<uint32_t>(value) << 8) >> 8)};
  };
  return low24(a) * low24(b);
}
template <class T>
struct Mul24Lo {
  T operator()(T a, T b) const { return static_cast<T>(product24(a, b)); }
};
template <class T>
struct Mul24Hi {
  T operator()(T a, T b) const { return static_cast<T>(product24(a, b) >> 16); }
};
template <class Mul, class T>
struct ThenAdd {
  T operator()(T a, T b, T c) const { return Add<T>()(Mul()(a, b), c); }
};
struct Mad24HiSat {
  int32_t operator()(int32_t a, int32_t b, int32_t c) const {
    return clamped(int64_t{Mul24Hi<int32_t>()(a, b)} + c);
  }
};

template <class T>
struct Sad {
  T operator()(T a, T b, T c) const { return Add<T>()(c, a < b ? Sub<T>()(b, a) : Sub<T>()(a, b)); }
};

template <class F>
struct Relu {
  template <class T>
  T operator()(T a, T b) const {
    return std::max(F()(a, b), T{0});
  }
};

// The two halves of 32 bits by themselves.
template <class F, class T>
struct OnPair {
  uint32_t operator()(uint32_t a, uint32_t b) const {
    const auto at = [](uint32_t of, int shift) { return static_cast<T>(of >> shift); };
    const uint32_t low = static_cast<uint16_t>(F()(at(a, 0), at(b, 0)));
    const uint32_t high = static_cast<uint16_t>(F()(at(a, 16), at(b, 16)));
    return high << 16 | low;
  }
};

// PTX ISA 9.7.1.23 and 9.7.1.24: dot products of bytes, and of 16-bit numbers with bytes.
template <class A, class B>
struct Dp4a {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    for (int i = 0; i < 32; i += 8) {
      c += static_cast<uint32_t>(int32_t{static_cast<A>(a >> i)} * static_cast<B>(b >> i));
    }
    return c;
  }
};
template <class A, class B, int kShift>
struct Dp2a {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t c) const {
    for (int i = 0; i < 2; ++i) {
      c += static_cast<uint32_t>(int32_t{static_cast<A>(a >> (16 * i))} *
                                 static_cast<B>(b >> (kShift + 8 * i)));
    }
    return c;
  }
};

// PTX ISA 9.7.2. Operands: d, CC.CF, the sources. `Product`: of the first two, or the first alone.
constexpr int64_t kReadsCarry = 1;
constexpr int64_t kWritesCarry = 2;
constexpr int64_t kSubtracts = 4;  // CC.CF is then the borrow

template <class T, class Product, int kFactors>
Flow extended(Step& step) {
  const int64_t how = step.op.modifiers;
  const Mask carries = (how & kReadsCarry) != 0 ? step.predicate(1) : 0;
  Mask carried = 0;
  step.each_lane([&](int lane) {
    const T a = Product()(step.reg<T>(2)[lane], step.reg<T>(1 + kFactors)[lane]);
    const T b = step.reg<T>(2 + kFactors)[lane];
    const auto carry = static_cast<T>(carries >> lane & 1);
    const bool subtracts = (how & kSubtracts) != 0;
    const T sum = static_cast<T>(subtracts ? a - b - carry : a + b + carry);
    const bool out = subtracts ? a < b || (a == b && carry != 0) : sum < a || (sum == a && b != 0);
    step.reg<T>(0)[lane] = sum;
    if (out) carried |= Mask{1} << lane;
  });
  if ((how & kWritesCarry) != 0) set_predicate(step, 1, carried);
  return Flow::kNext;
}
template <class T>
struct First {
  T operator()(T a, T /*itself*/) const { return a; }
};

template <class T, class Bits>
struct ProductHi {
  Bits operator()(Bits a, Bits b) const {
    return static_cast<Bits>(MulHi<T>()(static_cast<T>(a), static_cast<T>(b)));
  }
};

template <class T>
void add_type(Registry& registry, const std::string& type) {
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
  add("sad.", map<T, Sad<T>, T, T, T>);
  add("div.", map<T, Div<T>, T, T>);
  add("rem.", map<T, Rem<T>, T, T>);
  add("min.", map<T, Min<T>, T, T>);
  add("max.", map<T, Max<T>, T, T>);
  if constexpr (std::is_signed_v<T>) {
    add("neg.", map<T, Neg<T>, T>);
    add("abs.", map<T, Abs<T>, T>);
  }
  if constexpr (sizeof(T) == 4) {
    add("mul24.lo.", map<T, Mul24Lo<T>, T, T>);
    add("mul24.hi.", map<T, Mul24Hi<T>, T, T>);
    add("mad24.lo.", map<T, ThenAdd<Mul24Lo<T>, T>, T, T, T>);
    add("mad24.hi.", map<T, ThenAdd<Mul24Hi<T>, T>, T, T, T>);
  }
  if constexpr (sizeof(T) >= 4) {
    using Bits = Unsigned<T>;
    add("extended.add.", extended<Bits, First<Bits>, 1>);
    add("extended.mad.lo.", extended<Bits, MulLo<Bits>, 2>);
    add("extended.mad.hi.", extended<Bits, ProductHi<T, Bits>, 2>);
  }
}

}  // namespace

void register_integers(Registry& registry) {
  add_type<uint16_t>(registry, "u16");
  add_type<int16_t>(registry, "s16");
  add_type<uint32_t>(registry, "u32");
  add_type<int32_t>(registry, "s32");
  add_type<uint64_t>(registry, "u64");
  add_type<int64_t>(registry, "s64");
  registry["add.sat.s32"] = map<int32_t, AddSat, int32_t, int32_t>;
  registry["sub.sat.s32"] = map<int32_t, SubSat, int32_t, int32_t>;
  registry["mad.hi.sat.s32"] = map<int32_t, MadHiSat, int32_t, int32_t, int32_t>;
  registry["mad24.hi.sat.s32"] = map<int32_t, Mad24HiSat, int32_t, int32_t, int32_t>;
  registry["min.relu.s32"] = map<int32_t, Relu<Min<int32_t>>, int32_t, int32_t>;
  registry["max.relu.s32"] = map<int32_t, Relu<Max<int32_t>>, int32_t, int32_t>;
  const auto pair = [&](const char* name, Handler handler) { registry[name] = handler; };
  pair("add.u16x2", map<uint32_t, OnPair<Add<uint16_t>, uint16_t>, uint32_t, uint32_t>);
  pair("add.s16x2", map<uint32_t, OnPair<Add<uint16_t>, uint16_t>, uint32_t, uint32_t>);
  pair("min.u16x2", map<uint32_t, OnPair<Min<uint16_t>, uint16_t>, uint32_t, uint32_t>);
  pair("max.u16x2", map<uint32_t, OnPair<Max<uint16_t>, uint16_t>, uint32_t, uint32_t>);
  pair("min.s16x2", map<uint32_t, OnPair<Min<int16_t>, int16_t>, uint32_t, uint32_t>);
  pair("max.s16x2", map<uint32_t, OnPair<Max<int16_t>, int16_t>, uint32_t, uint32_t>);
  pair("min.relu.s16x2", map<uint32_t, OnPair<Relu<Min<int16_t>>, int16_t>, uint32_t, uint32_t>);
  pair("max.relu.s16x2", map<uint32_t, OnPair<Relu<Max<int16_t>>, int16_t>, uint32_t, uint32_t>);
  const auto dot = [&]<class A4, class B, class A2>(const char* types) {
    using U = uint32_t;
    registry[std::string("dp4a.") + types] = map<U, Dp4a<A4, B>, U, U, U>;
    registry[std::string("dp2a.lo.") + types] = map<U, Dp2a<A2, B, 0>, U, U, U>;
    registry[std::string("dp2a.hi.") + types] = map<U, Dp2a<A2, B, 16>, U, U, U>;
  };
  dot.template operator()<uint8_t, uint8_t, uint16_t>("u32.u32");
  dot.template operator()<uint8_t, int8_t, uint16_t>("u32.s32");
  dot.template operator()<int8_t, uint8_t, int16_t>("s32.u32");
  dot.template operator()<int8_t, int8_t, int16_t>("s32.s32");
}

}  // namespace gpusim
