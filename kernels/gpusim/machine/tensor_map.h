// SPDX-License-Identifier: MIT
// A CUtensorMap as the kernel's author encoded it: 128 bytes whose layout NVIDIA does not publish.
// What is read here was found by varying one argument of the encoder at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace gpusim {

inline constexpr std::size_t kTensorMapBytes = 128;
inline constexpr int kMostDimensions = 5;

struct TensorMap {
  // By the number that a map has for it.
  enum class Type : std::uint8_t {
    kU8,
    kU16,
    kU32,
    kS32,
    kU64,
    kS64,
    kF16,
    kF32,
    kF32Ftz,
    kF64,
    kBf16,
    kTf32,
    kTf32Ftz,
  };

  std::uint64_t address;
  int rank;
  Type type;
  std::uint32_t element_bytes;
  std::uint32_t swizzle;                              // 0 none, 1 32 bytes, 2 64, 3 128
  std::array<std::int64_t, kMostDimensions> sizes;    // elements, the innermost first
  std::array<std::int64_t, kMostDimensions> strides;  // bytes
  std::array<std::int64_t, kMostDimensions> box;      // elements

  [[nodiscard]] std::int64_t box_elements() const;
};

// Fault if the bytes are no tensor map that is known.
[[nodiscard]] TensorMap decode_tensor_map(const std::byte* bytes);

// Where a byte of a box lies in shared memory: the swizzle permutes 16-byte pieces by address bits
// (PTX ISA 5.5.7 "swizzling modes").
[[nodiscard]] constexpr std::uint32_t swizzled(std::uint32_t address, std::uint32_t swizzle) {
  constexpr std::array<std::uint32_t, 4> kMasks{0, 0x10, 0x30, 0x70};
  return address ^ ((address >> 3) & kMasks[swizzle]);
}

}  // namespace gpusim
