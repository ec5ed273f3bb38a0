// SPDX-License-Identifier: MIT
// What cp.reduce.async.bulk does to an element in memory (PTX ISA 9.7.9.25.4.2).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "formats.h"
#include "program.h"

namespace gpusim {

// In the order of decode/copies.py.
enum class Reduction : std::uint8_t {
  kNone,
  kAdd,
  kMin,
  kMax,
  kInc,
  kDec,
  kAnd,
  kOr,
  kXor,
};
enum class Number : std::uint8_t { kU32, kS32, kU64, kS64, kF16, kBf16, kF32, kF64 };

namespace reductions {

template <class T>
T arithmetic(Reduction reduction, T old, T value) {
  switch (reduction) {
    case Reduction::kAdd:
      return static_cast<T>(old + value);
    case Reduction::kMin:
      if constexpr (std::is_floating_point_v<T>) return std::fmin(old, value);
      return std::min(old, value);
    case Reduction::kMax:
      if constexpr (std::is_floating_point_v<T>) return std::fmax(old, value);
      return std::max(old, value);
    default:
      break;
  }
  if constexpr (std::is_unsigned_v<T>) {
    switch (reduction) {
      case Reduction::kInc:
        return old >= value ? 0 : old + 1;
      case Reduction::kDec:
        return old == 0 || old > value ? value : old - 1;
      case Reduction::kAnd:
        return old & value;
      case Reduction::kOr:
        return old | value;
      case Reduction::kXor:
        return old ^ value;
      default:
        break;
    }
  }
  throw Fault("reduction", "reduction " + std::to_string(static_cast<int>(reduction)) +
                               " is not one of the element type");
}

template <class T>
void each(Reduction reduction, std::byte* to, const std::byte* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += sizeof(T)) {
    T old;
    T value;
    std::memcpy(&old, to + i, sizeof(T));
    std::memcpy(&value, from + i, sizeof(T));
    old = arithmetic(reduction, old, value);
    std::memcpy(to + i, &old, sizeof(T));
  }
}

// The sum of two halves is exact in double, so it is rounded once.
inline void each_half(Format format, Reduction reduction, std::byte* to, const std::byte* from,
                      std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += sizeof(std::uint16_t)) {
    std::uint16_t old;
    std::uint16_t value;
    std::memcpy(&old, to + i, sizeof(old));
    std::memcpy(&value, from + i, sizeof(value));
    const double result = arithmetic<double>(reduction, widen(format, old), widen(format, value));
    old = static_cast<std::uint16_t>(narrow(format, result, Rounding::kNearestEven, false));
    std::memcpy(to + i, &old, sizeof(old));
  }
}

}  // namespace reductions

inline void reduce(Reduction reduction, Number type, std::byte* to, const std::byte* from,
                   std::size_t bytes) {
  switch (type) {
    case Number::kU32:
      return reductions::each<std::uint32_t>(reduction, to, from, bytes);
    case Number::kS32:
      return reductions::each<std::int32_t>(reduction, to, from, bytes);
    case Number::kU64:
      return reductions::each<std::uint64_t>(reduction, to, from, bytes);
    case Number::kS64:
      return reductions::each<std::int64_t>(reduction, to, from, bytes);
    case Number::kF16:
      return reductions::each_half(kF16, reduction, to, from, bytes);
    case Number::kBf16:
      return reductions::each_half(kBf16, reduction, to, from, bytes);
    case Number::kF32:
      return reductions::each<float>(reduction, to, from, bytes);
    case Number::kF64:
      return reductions::each<double>(reduction, to, from, bytes);
  }
}

}  // namespace gpusim
