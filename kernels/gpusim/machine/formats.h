// SPDX-License-Identifier: MIT
// Narrow floating-point numbers as bits: to float, and back with the roundings that PTX's cvt has.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace gpusim {

enum class Rounding : std::uint8_t { kNearestEven, kZero, kDown, kUp };

// A format with a sign, `exponent` and `mantissa` bits. `finite`: no infinity, and NaN is only the
// largest magnitude (e4m3, and e2m1, which has no NaN either).
struct Format {
  int exponent;
  int mantissa;
  bool finite;
  bool has_nan = true;

  [[nodiscard]] constexpr int bias() const { return (1 << (exponent - 1)) - 1; }
  [[nodiscard]] constexpr std::uint32_t sign() const { return 1U << (exponent + mantissa); }
  [[nodiscard]] constexpr std::uint32_t magnitude() const { return sign() - 1; }
  [[nodiscard]] constexpr std::uint32_t infinity() const {
    return ((1U << exponent) - 1) << mantissa;
  }
  [[nodiscard]] constexpr std::uint32_t nan() const { return magnitude(); }
  // Of the largest finite number.
  [[nodiscard]] constexpr std::uint32_t largest() const {
    if (!finite) return infinity() - 1;
    return has_nan ? magnitude() - 1 : magnitude();
  }
};

inline constexpr Format kF16{5, 10, false};
inline constexpr Format kBf16{8, 7, false};
inline constexpr Format kE4m3{4, 3, true};
inline constexpr Format kE5m2{5, 2, false};
inline constexpr Format kE2m1{2, 1, true, false};
inline constexpr Format kE2m3{2, 3, true, false};
inline constexpr Format kE3m2{3, 2, true, false};
inline constexpr Format kTf32{8, 10, false};
inline constexpr Format kF32{8, 23, false};

// The value of `bits`.
[[nodiscard]] inline float widen(Format format, std::uint32_t bits) {
  const std::uint32_t magnitude = bits & format.magnitude();
  const bool negative = (bits & format.sign()) != 0;
  float value = 0;
  if (!format.finite && magnitude >= format.infinity()) {
    value = magnitude == format.infinity() ? std::numeric_limits<float>::infinity()
                                           : std::numeric_limits<float>::quiet_NaN();
  } else if (format.finite && format.has_nan && magnitude == format.nan()) {
    value = std::numeric_limits<float>::quiet_NaN();
  } else {
    const auto exponent = static_cast<int>(magnitude >> format.mantissa);
    const auto fraction = static_cast<float>(magnitude & ((1U << format.mantissa) - 1));
    const int scale = std::max(exponent, 1) - format.bias() - format.mantissa;
    value = std::ldexp(fraction + (exponent > 0 ? static_cast<float>(1U << format.mantissa) : 0.0F),
                       scale);
  }
  return negative ? -value : value;
}

// `T`: double, or long double for integers of 64 bits.
// `saturate`: what is too large becomes the largest finite number (and NaN stays NaN where the
// format has one). Without it, the format's infinity, or NaN if it has none.
template <class T>
[[nodiscard]] std::uint32_t narrow(Format format, T value, Rounding rounding, bool saturate) {
  const std::uint32_t sign = std::signbit(value) ? format.sign() : 0;
  if (std::isnan(value)) return format.has_nan ? format.nan() : format.largest();
  const T magnitude = std::fabs(value);
  const std::uint32_t too_large =
      saturate ? format.largest()
               : (format.finite ? (format.has_nan ? format.nan() : format.largest())
                                : format.infinity());
  if (std::isinf(magnitude)) return sign | too_large;
  if (magnitude == 0) return sign;
  const int exponent = std::max(std::ilogb(magnitude), 1 - format.bias());
  // In units of the last place, which is what is rounded.
  const T units = std::ldexp(magnitude, format.mantissa - exponent);
  T whole = std::floor(units);
  const T rest = units - whole;
  const bool away =
      (rounding == Rounding::kUp && sign == 0) || (rounding == Rounding::kDown && sign != 0);
  if (rounding == Rounding::kNearestEven) {
    if (rest > 0.5 || (rest == 0.5 && std::fmod(whole, T{2}) != 0)) whole += 1;
  } else if (away && rest > 0) {
    whole += 1;
  }
  // A number below the smallest normal one has exponent field 0: the sum below comes out right.
  auto bits = static_cast<std::int64_t>(whole);
  const std::int64_t field = exponent + format.bias();
  bits += (field - 1) << format.mantissa;
  if (bits > static_cast<std::int64_t>(format.largest())) {
    const bool towards_zero =
        rounding == Rounding::kZero || (rounding != Rounding::kNearestEven && !away);
    return sign | (towards_zero ? format.largest() : too_large);
  }
  return sign | static_cast<std::uint32_t>(bits);
}

// The same for a float to nearest even, without floating point where the result is normal.
[[nodiscard]] inline std::uint32_t narrow_nearest(Format format, float value, bool saturate) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const int least = 127 + 1 - format.bias();  // exponent field of the smallest normal number
  if (const int field = static_cast<int>(magnitude >> 23); field < least || field == 255) {
    return narrow(format, static_cast<double>(value), Rounding::kNearestEven, saturate);
  }
  const int dropped = 23 - format.mantissa;
  const std::uint32_t half = (1U << (dropped - 1)) - 1 + (magnitude >> dropped & 1);
  const std::uint32_t rounded =
      ((magnitude + half) >> dropped) -
      (static_cast<std::uint32_t>(127 - format.bias()) << format.mantissa);
  if (rounded > format.largest()) {
    return narrow(format, static_cast<double>(value), Rounding::kNearestEven, saturate);
  }
  return ((bits >> 31) != 0 ? format.sign() : 0) | rounded;
}

[[nodiscard]] inline float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// To nearest even.
[[nodiscard]] inline std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return 0x7fff;
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

[[nodiscard]] inline float from_f16(std::uint16_t bits) {
  return widen(kF16, bits);
}

}  // namespace gpusim
