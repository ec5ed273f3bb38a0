// SPDX-License-Identifier: MIT
// mov that packs registers into a wider one, or unpacks one (PTX ISA 9.7.9.4).
#include <algorithm>
#include <cstdint>
#include <string>

#include "cluster.h"
#include "widths.h"

namespace gpusim {
namespace {

// mov of several registers into one, the first of them lowest. Operands: the result, the parts.
template <class Part, class Whole>
Flow join(Step& step) {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  Whole* const d = step.reg<Whole>(0);
  step.each_lane([&](int lane) {
    Whole whole = 0;
    for (int i = 0; i < kParts; ++i) {
      whole |= static_cast<Whole>(static_cast<Whole>(step.reg<Part>(i + 1)[lane])
                                  << (8 * sizeof(Part) * static_cast<std::size_t>(i)));
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
    Part* const d = step.reg<Part>(i);
    step.each_lane([&](int lane) {
      d[lane] = static_cast<Part>(whole[lane] >> (8 * sizeof(Part) * static_cast<std::size_t>(i)));
    });
  }
  return Flow::kNext;
}

template <class Part, class Whole>
void add_mov(Registry& registry) {
  const std::string part = std::to_string(8 * sizeof(Part));
  const std::string whole = std::to_string(8 * sizeof(Whole));
  registry["join." + part + "." + whole] = join<Part, Whole>;
  registry["split." + whole + "." + part] = split<Part, Whole>;
}

}  // namespace

void register_moves(Registry& registry) {
  add_mov<std::uint8_t, std::uint16_t>(registry);
  add_mov<std::uint8_t, std::uint32_t>(registry);
  add_mov<std::uint8_t, std::uint64_t>(registry);
  add_mov<std::uint16_t, std::uint32_t>(registry);
  add_mov<std::uint16_t, std::uint64_t>(registry);
  add_mov<std::uint32_t, std::uint64_t>(registry);
  add_mov<std::uint32_t, UInt128>(registry);
  add_mov<std::uint64_t, UInt128>(registry);
}

}  // namespace gpusim
