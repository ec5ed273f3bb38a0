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
    k16U4Align8,   // 4 bits, packed
    k16U4Align16,  // 16 elements of 4 bits in 16 bytes of shared memory, the rest of them padding
    k16U6Align16,  // the same of 6 bits
  };

  std::uint64_t address;
  int rank;
  Type type;
  std::uint32_t element_bytes;  // of a unit: an element, but some of less than a byte together
  std::uint32_t shared_bytes;   // of a unit in shared memory
  int elements_together;        // of a unit; sizes, box and coordinates count units
  std::uint32_t swizzle;        // 0 none, 1 32 bytes, 2 64, 3 128; kSwizzle128Atom32
  std::array<std::int64_t, kMostDimensions> sizes;    // units, the innermost first
  std::array<std::int64_t, kMostDimensions> strides;  // bytes
  std::array<std::int64_t, kMostDimensions> box;      // units

  [[nodiscard]] std::int64_t box_elements() const;
};

// Fault if the bytes are no tensor map that is known.
[[nodiscard]] TensorMap decode_tensor_map(const std::byte* bytes);

// Of 128 bytes in atoms of 32.
inline constexpr std::uint32_t kSwizzle128Atom32 = 4;

// Where a byte of a box lies in shared memory: the swizzle permutes 16-byte pieces (or atoms of 32)
// by address bits (PTX ISA 5.5.7 "swizzling modes"). `pattern`: where the pattern begins.
[[nodiscard]] constexpr std::uint32_t swizzled(std::uint32_t address, std::uint32_t swizzle,
                                               std::uint32_t pattern = 0) {
  constexpr std::array<std::uint32_t, 5> kMasks{0, 0x10, 0x30, 0x70, 0x60};
  const unsigned shift = swizzle == kSwizzle128Atom32 ? 2 : 3;
  return address ^ (((address - pattern) >> shift) & kMasks[swizzle]);
}

}  // namespace gpusim
