// SPDX-License-Identifier: MIT
#include "tensor_map.h"

#include <cstring>
#include <string>

#include "program.h"

namespace gpusim {

std::int64_t TensorMap::box_elements() const {
  std::int64_t elements = 1;
  for (int i = 0; i < rank; ++i) elements *= box[static_cast<std::size_t>(i)];
  return elements;
}

TensorMap decode_tensor_map(const std::byte* bytes) {
  std::array<std::uint32_t, 16> words;
  std::memcpy(words.data(), bytes, sizeof(words));
  struct Unit {
    std::uint32_t bytes, shared_bytes;
    int elements;
  };
  // By the type's number. Those of less than a byte: PTX ISA 5.5.1.1.1.
  constexpr std::array<Unit, 16> kUnits{{{1, 1, 1},
                                         {2, 2, 1},
                                         {4, 4, 1},
                                         {4, 4, 1},
                                         {8, 8, 1},
                                         {8, 8, 1},
                                         {2, 2, 1},
                                         {4, 4, 1},
                                         {4, 4, 1},
                                         {8, 8, 1},
                                         {2, 2, 1},
                                         {1, 1, 2},
                                         {8, 16, 16},
                                         {12, 16, 16},
                                         {},
                                         {}}};
  TensorMap map{};
  map.address = words[0] | std::uint64_t{words[1]} << 32;
  map.rank = static_cast<int>(words[2] >> 4 & 7) + 1;
  map.type = static_cast<TensorMap::Type>(words[2] >> 7 & 15);
  const Unit unit = kUnits[words[2] >> 7 & 15];
  map.element_bytes = unit.bytes;
  map.shared_bytes = unit.shared_bytes;
  map.elements_together = unit.elements;
  map.swizzle = words[2] >> 13 & 3;
  if (map.rank > kMostDimensions || map.element_bytes == 0 || (words[2] & 15) != 2) {
    throw Fault("tensor-map", "the 128 bytes given as a tensor map are none (word 2 is " +
                                  std::to_string(words[2]) + ")");
  }
  for (int i = 0; i < map.rank; ++i) {
    const auto at = static_cast<std::size_t>(i);
    map.sizes[at] = std::int64_t{words[8 + at]} + 1;
    map.box[at] = i == 0 ? std::int64_t{words[13] >> 24} + 1
                         : std::int64_t{words[14] >> (8 * (at - 1)) & 255} + 1;
    map.strides[at] = map.element_bytes;
    if (i > 0) {
      const std::uint64_t high = words[7] >> (4 * (at - 1)) & 15;
      map.strides[at] = static_cast<std::int64_t>((words[2 + at] | high << 32) << 4);
    }
  }
  if (map.sizes[0] % unit.elements != 0 || map.box[0] % unit.elements != 0) {
    throw Fault("tensor-map", "a tensor map of elements of less than a byte has rows of " +
                                  std::to_string(map.sizes[0]) + " and a box of " +
                                  std::to_string(map.box[0]) + "; they must be multiples of " +
                                  std::to_string(unit.elements));
  }
  map.sizes[0] /= unit.elements;
  map.box[0] /= unit.elements;
  return map;
}

}  // namespace gpusim
