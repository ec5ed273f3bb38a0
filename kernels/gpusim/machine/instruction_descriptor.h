// SPDX-License-Identifier: MIT
// What a tcgen05.mma multiplies: its kind and its instruction descriptor (PTX ISA 9.7.16.4.2).
#pragma once

#include <cstdint>

#include "matrices.h"

namespace gpusim {

enum class Kind : std::uint8_t { kF16, kTf32, kF8f6f4, kI8, kMxf8f6f4, kMxf4, kMxf4nvf4 };
enum class ScaleType : std::uint8_t { kUe8m0, kUe4m3 };

[[nodiscard]] constexpr bool is_block_scaled(Kind kind) {
  return kind >= Kind::kMxf8f6f4;
}

// The modifiers of the instruction that its descriptor must fit.
struct MmaForm {
  Kind kind;
  bool pair;  // .cta_group::2
  bool weight_stationary;
  bool sparse;
  int block;     // elements of A along K that share a scale factor: 16 or 32; 0: none
  bool counted;  // the instruction says how many factors a row has (.scale_vec), not the block
};

struct MmaShape {
  int m, n, k;
  Element a, b;
  Result result;
  bool saturates;
  bool a_negated, b_negated, a_mn_major, b_mn_major;
  int most_shift;  // columns by which .ws may shift B
  int sparsity;    // selector of the metadata
  ScaleType scale;
  int a_scale, b_scale;  // ids of the scale factors: the first byte in a word of tensor memory
  int blocks;            // scale factors of a row
};

// Fault if the descriptor is none of such an instruction, or the shape is none of PTX ISA
// 9.7.16.2.1.
[[nodiscard]] MmaShape decode_shape(const MmaForm& form, std::uint32_t descriptor);

}  // namespace gpusim
