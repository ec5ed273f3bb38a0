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
  // PTX ISA 9.7.9.26 "tensormap.replace", values of .elemtype.
  constexpr std::array<std::uint32_t, 16> kElementBytes{1, 2, 4, 4, 8, 8, 2, 4,
                                                        4, 8, 2, 4, 4, 0, 0, 0};
  TensorMap map{};
  map.address = words[0] | std::uint64_t{words[1]} << 32;
  map.rank = static_cast<int>(words[2] >> 4 & 7) + 1;
  map.type = static_cast<TensorMap::Type>(words[2] >> 7 & 15);
  map.element_bytes = kElementBytes[words[2] >> 7 & 15];
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
  return map;
}

}  // namespace gpusim
