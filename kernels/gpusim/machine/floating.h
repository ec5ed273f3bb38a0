// SPDX-License-Identifier: MIT
// What one floating-point instruction computes, whatever its format.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace gpusim {

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
template <class T>
struct Fused {
  T operator()(T a, T b, T c) const { return std::fma(a, b, c); }
};
// a * b + c for numbers whose product is exact in double. The sum is rounded to odd, which keeps
// the rounding to the narrower format from seeing a tie that is none (Boldo and Melquiond, 2008).
struct FusedToOdd {
  double operator()(double a, double b, double c) const {
    const double product = a * b;
    const double sum = product + c;
    const double c_part = sum - product;
    const double error = (product - (sum - c_part)) + (c - c_part);
    const auto bits = std::bit_cast<std::uint64_t>(sum);
    if (error != 0 && (bits & 1) == 0 && std::isfinite(sum)) {
      const bool outward = (error > 0) == (sum > 0);
      return std::bit_cast<double>(outward ? bits + 1 : bits - 1);
    }
    return sum;
  }
};
// Of two numbers; NaN only if both are, and a signalling one is like another (std::fmin differs
// here). -0 is less than +0.
template <class T>
struct FloatMin {
  T operator()(T a, T b) const {
    if (a == b) return std::signbit(a) ? a : b;
    return a < b || std::isnan(b) ? a : b;
  }
};
template <class T>
struct FloatMax {
  T operator()(T a, T b) const {
    if (a == b) return std::signbit(a) ? b : a;
    return a > b || std::isnan(b) ? a : b;
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
// .xorsign.abs: the magnitude that F chooses, with the product's sign.
template <class F, class T>
struct XorSign {
  T operator()(T a, T b) const {
    const T magnitude = F()(std::fabs(a), std::fabs(b));
    if (std::isnan(magnitude)) return magnitude;
    return std::copysign(magnitude, std::signbit(a) != std::signbit(b) ? T{-1} : T{1});
  }
};

}  // namespace gpusim
