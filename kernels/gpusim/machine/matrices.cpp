// SPDX-License-Identifier: MIT
#include "matrices.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "formats.h"
#include "tensor_map.h"

namespace gpusim {
namespace {

std::array<float, 256> values_of(Format format) {
  std::array<float, 256> values;
  for (std::uint32_t bits = 0; bits < 256; ++bits) {
    values[bits] = widen(format, bits & (format.sign() | format.magnitude()));
  }
  return values;
}

// Where an element is, in bytes from the descriptor's start, before swizzling.
struct Layout {
  std::uint32_t span;  // bytes of a swizzled row
  std::uint32_t leading, stride;
  std::uint32_t element;
  bool mn_major;
  bool swizzled;

  [[nodiscard]] std::uint32_t offset(std::uint32_t row, std::uint32_t k) const {
    const std::uint32_t byte = k * element;
    if (!mn_major) {
      if (swizzled) return (row % 8 * span) + (row / 8 * stride) + byte;
      return (row % 8 * 16) + (row / 8 * stride) + (byte % 16) + (byte / 16 * leading);
    }
    const std::uint32_t together = span / element;  // rows in one swizzled line
    if (swizzled) {
      return (row % together * element) + (row / together * leading) + (k % 8 * span) +
             (k / 8 * stride);
    }
    return (row % together * element) + (row / together * stride) + (k % 8 * 16) +
           (k / 8 * leading);
  }
};

}  // namespace

int element_bytes(Element type) {
  switch (type) {
    case Element::kTf32: return 4;
    case Element::kF16:
    case Element::kBf16: return 2;
    default: return 1;
  }
}

float element_value(Element type, std::uint32_t bits) {
  static const auto kE4m3Values = values_of(kE4m3);
  static const auto kE5m2Values = values_of(kE5m2);
  static const auto kE2m3Values = values_of(kE2m3);
  static const auto kE3m2Values = values_of(kE3m2);
  static const auto kE2m1Values = values_of(kE2m1);
  switch (type) {
    case Element::kF16: return from_f16(static_cast<std::uint16_t>(bits));
    case Element::kBf16: return from_bf16(static_cast<std::uint16_t>(bits));
    case Element::kTf32: return std::bit_cast<float>(bits & 0xffffe000);
    case Element::kE4m3: return kE4m3Values[bits];
    case Element::kE5m2: return kE5m2Values[bits];
    case Element::kE2m3: return kE2m3Values[bits & 0x3f];
    case Element::kE3m2: return kE3m2Values[bits & 0x3f];
    case Element::kE2m1: return kE2m1Values[bits & 0xf];
  }
  return 0;
}

std::vector<float> read_operand(Cta& cta, const SharedDescriptor& descriptor, int first_row,
                                int rows, Element type, bool mn_major) {
  constexpr std::array<std::uint32_t, 4> kSpans{16, 32, 64, 128};
  const auto element = static_cast<std::uint32_t>(element_bytes(type));
  const Layout layout{.span = kSpans[descriptor.swizzle],
                      .leading = descriptor.leading,
                      .stride = descriptor.stride,
                      .element = element,
                      .mn_major = mn_major,
                      .swizzled = descriptor.swizzle != 0};
  const std::uint32_t ks = kOperandBytes / element;
  std::vector<float> values(static_cast<std::size_t>(rows) * ks);
  float* to = values.data();
  for (std::uint32_t row = 0; row < static_cast<std::uint32_t>(rows); ++row) {
    for (std::uint32_t k = 0; k < ks; ++k) {
      const std::uint32_t at = swizzled(
          descriptor.start + layout.offset(static_cast<std::uint32_t>(first_row) + row, k),
          descriptor.swizzle);
      const std::byte* memory = cta.shared.at(at, element, element);
      cta.shared.demand_written(at, element);
      std::uint32_t bits = 0;
      std::memcpy(&bits, memory, element);
      *to++ = element_value(type, bits);
    }
  }
  return values;
}

void multiply(const std::vector<float>& a, const std::vector<float>& b, int m, int n, int k,
              float* product) {
  std::vector<float> across(static_cast<std::size_t>(k) * static_cast<std::size_t>(n));
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < k; ++i) {
      across[static_cast<std::size_t>(i) * n + j] = b[static_cast<std::size_t>(j) * k + i];
    }
  }
  for (int row = 0; row < m; ++row) {
    float* const sum = product + (static_cast<std::size_t>(row) * n);
    std::fill_n(sum, n, 0.0F);
    for (int i = 0; i < k; ++i) {
      const float factor = a[static_cast<std::size_t>(row) * k + i];
      const float* const line = across.data() + (static_cast<std::size_t>(i) * n);
      for (int j = 0; j < n; ++j) sum[j] += factor * line[j];
    }
  }
}

void register_matrices(Registry& registry) {
  register_tcgen05(registry);
  register_wgmma(registry);
}

}  // namespace gpusim
