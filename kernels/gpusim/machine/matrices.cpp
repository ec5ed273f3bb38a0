// SPDX-License-Identifier: MIT
#include "matrices.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

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

const std::vector<float>& half_values() {
  static const std::vector<float> kValues = [] {
    std::vector<float> values(1 << 16);
    for (std::uint32_t bits = 0; bits < values.size(); ++bits) values[bits] = widen(kF16, bits);
    return values;
  }();
  return kValues;
}

constexpr std::array<std::uint32_t, 5> kSpans{16, 32, 64, 128, 128};

// Where an element is, in bytes from the descriptor's start, before swizzling.
struct Layout {
  std::uint32_t span;   // bytes of a swizzled row
  std::uint32_t lines;  // along K, of a swizzle's pattern
  std::uint32_t leading, stride;
  bool mn_major;
  bool swizzled;

  Layout(const SharedDescriptor& descriptor, bool rows_adjoin)
      : span(kSpans[descriptor.swizzle]),
        lines(descriptor.swizzle == kSwizzle128Atom32 ? 4 : 8),
        leading(descriptor.leading),
        stride(descriptor.stride),
        mn_major(rows_adjoin),
        swizzled(descriptor.swizzle != 0) {}

  // `byte`: in a row, if not mn_major; else across the rows.
  [[nodiscard]] std::uint32_t along_k(std::uint32_t row, std::uint32_t byte) const {
    if (swizzled) return (row % 8 * span) + (row / 8 * stride) + byte;
    return (row % 8 * 16) + (row / 8 * stride) + (byte % 16) + (byte / 16 * leading);
  }
  [[nodiscard]] std::uint32_t across_k(std::uint32_t byte, std::uint32_t k) const {
    if (swizzled) {
      return (byte % span) + (byte / span * leading) + (k % lines * span) + (k / lines * stride);
    }
    return (byte % 16) + (byte / 16 * stride) + (k % 8 * 16) + (k / 8 * leading);
  }
};

}  // namespace

int element_bytes(Element type) {
  switch (type) {
    case Element::kTf32:
      return 4;
    case Element::kF16:
    case Element::kBf16:
      return 2;
    default:
      return 1;
  }
}

const char* name_of(Element type) {
  constexpr const char* kNames[] = {"f16",  "bf16", "tf32", "e4m3", "e5m2",
                                    "e2m3", "e3m2", "e2m1", "s8",   "u8"};
  return kNames[static_cast<std::size_t>(type)];
}

float element_value(Element type, std::uint32_t bits) {
  static const auto kE4m3Values = values_of(kE4m3);
  static const auto kE5m2Values = values_of(kE5m2);
  static const auto kE2m3Values = values_of(kE2m3);
  static const auto kE3m2Values = values_of(kE3m2);
  static const auto kE2m1Values = values_of(kE2m1);
  switch (type) {
    case Element::kF16:
      return half_values()[bits];
    case Element::kBf16:
      return from_bf16(static_cast<std::uint16_t>(bits));
    case Element::kTf32:
      return std::bit_cast<float>(bits & 0xffffe000);
    case Element::kE4m3:
      return kE4m3Values[bits];
    case Element::kE5m2:
      return kE5m2Values[bits];
    case Element::kE2m3:
      return kE2m3Values[bits & 0x3f];
    case Element::kE3m2:
      return kE3m2Values[bits & 0x3f];
    case Element::kE2m1:
      return kE2m1Values[bits & 0xf];
    case Element::kS8:
      return static_cast<float>(static_cast<std::int8_t>(bits));
    case Element::kU8:
      return static_cast<float>(bits);
    case Element::kE2m1Pairs:
      return kE2m1Values[bits & 0xf];
  }
  return 0;
}

int elements_of_piece(Element type) {
  return type == Element::kE2m1Pairs ? 32 : kPieceBytes / element_bytes(type);
}

void widen_word(Element type, std::uint32_t word, float* to) {
  const int count = elements_of_piece(type) / 4;
  const int width = 32 / count;
  // An e2m1 of its own has its bits in the middle of the byte (PTX ISA 9.7.16.10.4.3).
  const int low = type == Element::kE2m1 ? 2 : 0;
  const std::uint32_t mask = width == 32 ? ~0U : (1U << width) - 1;
  for (int i = 0; i < count; ++i) to[i] = element_value(type, (word >> (width * i) & mask) >> low);
}

namespace {

// Bits of an element in a piece of shared memory.
constexpr std::size_t bits_in_piece(Element type) {
  switch (type) {
    case Element::kTf32:
      return 32;
    case Element::kF16:
    case Element::kBf16:
      return 16;
    case Element::kE2m3:
    case Element::kE3m2:
      return 6;
    case Element::kE2m1:
    case Element::kE2m1Pairs:
      return 4;
    default:
      return 8;
  }
}

// The elements of a piece: packed at its beginning, the rest is padding.
template <Element kType>
void widen_piece(const std::byte* piece, float* to, std::size_t stride) {
  constexpr std::size_t kBits = bits_in_piece(kType);
  constexpr std::size_t kCount = kType == Element::kE2m1Pairs ? 32 : 128 / std::max(kBits, 8UL);
  if constexpr (kBits >= 8) {
    for (std::size_t i = 0; i < kCount; ++i) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, piece + (i * kBits / 8), kBits / 8);
      to[i * stride] = element_value(kType, bits);
    }
  } else {
    for (std::size_t i = 0; i < kCount; ++i) {
      std::uint16_t bits = 0;
      const std::size_t at = i * kBits / 8;
      std::memcpy(&bits, piece + at, at + 1 < kPieceBytes ? 2 : 1);
      to[i * stride] = element_value(kType, bits >> (i * kBits % 8));
    }
  }
}

using WidenPiece = void (*)(const std::byte*, float*, std::size_t);

WidenPiece widen_piece_of(Element type) {
  switch (type) {
    case Element::kF16:
      return widen_piece<Element::kF16>;
    case Element::kBf16:
      return widen_piece<Element::kBf16>;
    case Element::kTf32:
      return widen_piece<Element::kTf32>;
    case Element::kE4m3:
      return widen_piece<Element::kE4m3>;
    case Element::kE5m2:
      return widen_piece<Element::kE5m2>;
    case Element::kE2m3:
      return widen_piece<Element::kE2m3>;
    case Element::kE3m2:
      return widen_piece<Element::kE3m2>;
    case Element::kE2m1:
      return widen_piece<Element::kE2m1>;
    case Element::kS8:
      return widen_piece<Element::kS8>;
    case Element::kU8:
      return widen_piece<Element::kU8>;
    case Element::kE2m1Pairs:
      return widen_piece<Element::kE2m1Pairs>;
  }
  return nullptr;
}

// The first `bytes` of the piece at an offset from a descriptor's start.
const std::byte* piece_at(Cta& cta, const SharedDescriptor& descriptor, std::uint32_t offset,
                          std::uint32_t bytes) {
  std::uint32_t at = descriptor.start + offset;
  // Of what is past the line of 128 bytes `leading` is the address (PTX ISA 9.7.16.3.1.2).
  if (descriptor.second_chunk && descriptor.start % 128 + offset % 128 >= 128) {
    at = descriptor.leading + offset - (128 - descriptor.start % 128);
  }
  at = swizzled(at, descriptor.swizzle, descriptor.pattern);
  const std::byte* piece = cta.shared.at(at, bytes, bytes == kPieceBytes ? kPieceBytes : 4);
  cta.shared.demand_written(at, bytes);
  return piece;
}

}  // namespace

void read_piece(Cta& cta, const SharedDescriptor& descriptor, int row, int piece, int bytes,
                std::uint32_t* to) {
  const Layout layout(descriptor, false);
  const std::uint32_t offset = layout.along_k(static_cast<std::uint32_t>(row),
                                              static_cast<std::uint32_t>(kPieceBytes * piece));
  const auto count = static_cast<std::uint32_t>(bytes);
  std::memcpy(to, piece_at(cta, descriptor, offset, count), count);
}

std::vector<float> read_operand(Cta& cta, const SharedDescriptor& descriptor, int first_row,
                                int rows, Element type, bool mn_major, int pieces) {
  const Layout layout(descriptor, mn_major);
  const auto together = static_cast<std::uint32_t>(elements_of_piece(type));
  const auto bytes = static_cast<std::uint32_t>(together * bits_in_piece(type) / 8);
  const auto count = static_cast<std::uint32_t>(rows);
  const auto first = static_cast<std::uint32_t>(first_row);
  const auto ks = static_cast<std::uint32_t>(pieces) * together;
  std::vector<float> values(static_cast<std::size_t>(count) * ks);
  const WidenPiece widen = widen_piece_of(type);
  if (mn_major) {
    const std::uint32_t element = kPieceBytes / together;
    for (std::uint32_t k = 0; k < ks; ++k) {
      for (std::uint32_t row = 0; row < count; row += together) {
        const std::uint32_t offset = layout.across_k((first + row) * element, k);
        widen(piece_at(cta, descriptor, offset, bytes),
              values.data() + (static_cast<std::size_t>(row) * ks) + k, ks);
      }
    }
  } else {
    for (std::uint32_t row = 0; row < count; ++row) {
      for (std::uint32_t k = 0; k < ks; k += together) {
        const std::uint32_t offset = layout.along_k(first + row, k / together * kPieceBytes);
        widen(piece_at(cta, descriptor, offset, bytes),
              values.data() + (static_cast<std::size_t>(row) * ks) + k, 1);
      }
    }
  }
  return values;
}

std::uint32_t add_integers(std::uint32_t before, float sum, bool saturates) {
  std::int64_t after = static_cast<std::int32_t>(before) + static_cast<std::int64_t>(sum);
  if (saturates) {
    after = std::clamp<std::int64_t>(after, std::numeric_limits<std::int32_t>::min(),
                                     std::numeric_limits<std::int32_t>::max());
  }
  return static_cast<std::uint32_t>(after);
}

std::uint32_t accumulate(Result result, bool saturates, std::uint32_t before, bool accumulates,
                         const float* values) {
  if (result == Result::kF32) {
    return std::bit_cast<std::uint32_t>(accumulates ? std::bit_cast<float>(before) + values[0]
                                                    : values[0]);
  }
  if (result == Result::kF16) {
    std::uint32_t word = 0;
    for (int i = 0; i < 2; ++i) {
      const float old = accumulates ? from_f16(before >> (16 * i) & 0xffff) : 0.0F;
      word |= narrow(kF16, old + values[i], Rounding::kNearestEven, false) << (16 * i);
    }
    return word;
  }
  return add_integers(accumulates ? before : 0, values[0], saturates);
}

namespace {

// kVectors * kWidth columns of two rows of the product: the sums stay in registers. Each is taken
// in the order of k, and nothing is contracted to a fused multiply-add: all widths compute the
// same.
template <int kWidth, int kVectors>
[[gnu::always_inline]] inline void multiply_rows(const float* a0, const float* a1,
                                                 const float* across, int n, int k, float* product0,
                                                 float* product1) {
  using Vector [[gnu::vector_size(kWidth * sizeof(float))]] = float;
  Vector sum0[kVectors] = {};
  Vector sum1[kVectors] = {};
  for (int i = 0; i < k; ++i) {
    const float* const line = across + (static_cast<std::size_t>(i) * n);
    for (int v = 0; v < kVectors; ++v) {
      Vector factors;
      std::memcpy(&factors, line + (static_cast<std::size_t>(v) * kWidth), sizeof(Vector));
      sum0[v] += a0[i] * factors;
      sum1[v] += a1[i] * factors;
    }
  }
  std::memcpy(product0, sum0, sizeof(sum0));
  std::memcpy(product1, sum1, sizeof(sum1));
}

struct Factors {
  const float* a;
  const float* b;
  int m, n, k;
};

// `kWidth`: floats that the processor adds at once.
template <int kWidth>
[[gnu::always_inline]] inline void multiply_by(const Factors& of, float* product) {
  const int n = of.n;
  const int k = of.k;
  std::vector<float> across(static_cast<std::size_t>(k) * static_cast<std::size_t>(n));
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < k; ++i) {
      across[static_cast<std::size_t>(i) * n + j] = of.b[static_cast<std::size_t>(j) * k + i];
    }
  }
  for (int row = 0; row < of.m; row += 2) {
    const float* const a0 = of.a + (static_cast<std::size_t>(row) * k);
    float* const product0 = product + (static_cast<std::size_t>(row) * n);
    const bool alone = row + 1 == of.m;
    const float* const a1 = alone ? a0 : a0 + k;
    float* const product1 = alone ? product0 : product0 + n;
    int j = 0;
    for (; j + 32 <= n; j += 32) {
      multiply_rows<kWidth, 32 / kWidth>(a0, a1, across.data() + j, n, k, product0 + j,
                                         product1 + j);
    }
    constexpr int kNarrow = kWidth < 8 ? kWidth : 8;
    for (; j < n; j += 8) {  // n is a multiple
      multiply_rows<kNarrow, 8 / kNarrow>(a0, a1, across.data() + j, n, k, product0 + j,
                                          product1 + j);
    }
  }
}

[[gnu::target("avx512f")]] void multiply_by_16(const Factors& of, float* product) {
  multiply_by<16>(of, product);
}
[[gnu::target("avx2")]] void multiply_by_8(const Factors& of, float* product) {
  multiply_by<8>(of, product);
}
void multiply_by_4(const Factors& of, float* product) {
  multiply_by<4>(of, product);
}

}  // namespace

void multiply(const std::vector<float>& a, const std::vector<float>& b, int m, int n, int k,
              float* product) {
  static const auto kWidest = __builtin_cpu_supports("avx512f") != 0 ? multiply_by_16
                              : __builtin_cpu_supports("avx2") != 0  ? multiply_by_8
                                                                     : multiply_by_4;
  kWidest({.a = a.data(), .b = b.data(), .m = m, .n = n, .k = k}, product);
}

void register_matrices(Registry& registry) {
  register_tcgen05(registry);
  register_wgmma(registry);
  register_mma(registry);
}

}  // namespace gpusim
