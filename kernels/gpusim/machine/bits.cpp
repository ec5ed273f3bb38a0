// SPDX-License-Identifier: MIT
// Bits: logic, shifts, fields, counts and bytes (PTX ISA 9.7.1.14 to 9.7.1.20, 9.7.8, 9.7.9.7).
#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <type_traits>

#include "lanes.h"
#include "widths.h"

namespace gpusim {
namespace {

// Wide enough that a 16-bit operand is not promoted to int.
template <class T>
using Unpromoted = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

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
struct Cnot {
  T operator()(T a) const { return a == 0 ? T{1} : T{0}; }
};
template <class T>
struct Shl {
  T operator()(T a, uint32_t n) const {
    return n >= 8 * sizeof(T) ? T{0} : static_cast<T>(Unpromoted<T>(a) << n);
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
struct BfindShift {  // .shiftamt: how far left the bit found has to go to be the highest
  uint32_t operator()(T a) const {
    const uint32_t found = Bfind<T>()(a);
    return found == ~uint32_t{0} ? found : static_cast<uint32_t>(8 * sizeof(T) - 1) - found;
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

// PTX ISA 9.7.9.7 "prmt": a selector of four bits for each byte.
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
// The other modes: two bits choose among four selectors.
enum class PrmtMode : std::uint8_t { kF4e, kB4e, kRc8, kEcl, kEcr, kRc16 };
constexpr uint32_t kPrmtSelectors[][4] = {
    {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123},
    {0x0000, 0x1111, 0x2222, 0x3333}, {0x3210, 0x3211, 0x3222, 0x3333},
    {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232},
};
template <PrmtMode kMode>
struct PrmtIn {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t selector) const {
    return Prmt()(a, b, kPrmtSelectors[static_cast<int>(kMode)][selector & 3]);
  }
};

template <class T>
void add_bits(Registry& registry, const std::string& type) {
  const auto add = [&](const char* name, Handler handler) { registry[name + type] = handler; };
  add("and.", map<T, And<T>, T, T>);
  add("or.", map<T, Or<T>, T, T>);
  add("xor.", map<T, Xor<T>, T, T>);
  add("not.", map<T, Not<T>, T>);
  add("cnot.", map<T, Cnot<T>, T>);
  add("mov.", map<T, Move<T>, T>);
  add("shl.", map<T, Shl<T>, T, uint32_t>);
  add("shr.", map<T, Shr<T>, T, uint32_t>);
  if constexpr (sizeof(T) >= 4) {
    add("bfi.", map<T, Bfi<T>, T, T, uint32_t, uint32_t>);
    add("popc.", map<uint32_t, Popc<T>, T>);
    add("clz.", map<uint32_t, Clz<T>, T>);
    add("brev.", map<T, Brev<T>, T>);
  }
}

template <class T>
void add_numbers(Registry& registry, const std::string& type) {
  registry["shr." + type] = map<T, Shr<T>, T, uint32_t>;
  if constexpr (sizeof(T) >= 4) {
    registry["bfe." + type] = map<T, Bfe<T>, T, uint32_t, uint32_t>;
    registry["bfind." + type] = map<uint32_t, Bfind<T>, T>;
    registry["bfind.shiftamt." + type] = map<uint32_t, BfindShift<T>, T>;
  }
}

}  // namespace

void register_bits(Registry& registry) {
  add_bits<uint8_t>(registry, "b8");
  add_bits<uint16_t>(registry, "b16");
  add_bits<uint32_t>(registry, "b32");
  add_bits<uint64_t>(registry, "b64");
  add_numbers<uint16_t>(registry, "u16");
  add_numbers<int16_t>(registry, "s16");
  add_numbers<uint32_t>(registry, "u32");
  add_numbers<int32_t>(registry, "s32");
  add_numbers<uint64_t>(registry, "u64");
  add_numbers<int64_t>(registry, "s64");
  const auto words = [&]<class F>(const char* name) {
    registry[std::string(name) + ".b32"] = map<uint32_t, F, uint32_t, uint32_t, uint32_t>;
  };
  registry["lop3.b32"] = map<uint32_t, Lop3, uint32_t, uint32_t, uint32_t, uint32_t>;
  words.operator()<ShfLeftWrap>("shf.l.wrap");
  words.operator()<ShfRightWrap>("shf.r.wrap");
  words.operator()<ShfLeftClamp>("shf.l.clamp");
  words.operator()<ShfRightClamp>("shf.r.clamp");
  words.operator()<Prmt>("prmt");
  words.operator()<PrmtIn<PrmtMode::kF4e>>("prmt.f4e");
  words.operator()<PrmtIn<PrmtMode::kB4e>>("prmt.b4e");
  words.operator()<PrmtIn<PrmtMode::kRc8>>("prmt.rc8");
  words.operator()<PrmtIn<PrmtMode::kEcl>>("prmt.ecl");
  words.operator()<PrmtIn<PrmtMode::kEcr>>("prmt.ecr");
  words.operator()<PrmtIn<PrmtMode::kRc16>>("prmt.rc16");
}

}  // namespace gpusim
