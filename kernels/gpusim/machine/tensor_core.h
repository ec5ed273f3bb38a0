// SPDX-License-Identifier: MIT
// A tcgen05.mma once it is its turn: operands from shared and tensor memory, the product, D.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "cluster.h"
#include "instruction_descriptor.h"

namespace gpusim {

// Tensor memory addresses: the lane above, the column below.
struct TensorAddress {
  int lane;
  int column;
};
[[nodiscard]] inline TensorAddress tensor_address(std::uint32_t bits) {
  return {static_cast<int>(bits >> 16), static_cast<int>(bits & 0xffff)};
}

// PTX ISA 9.7.16.4.1 "shared memory descriptor". Fault if it is none.
[[nodiscard]] SharedDescriptor tcgen05_descriptor(std::uint64_t bits);

// Which columns of B a .ws multiplies with, and which are zero (PTX ISA 9.7.16.4.3). Each bank of D
// has spans of columns that are used and spans of zeros, by turns.
class ColumnMask {
 public:
  // Fault if it is none for such a shape.
  ColumnMask(std::uint64_t bits, const MmaShape& shape);
  // The row of B that column `n` of D takes; nothing: zeros.
  [[nodiscard]] std::optional<int> source(int n) const;

 private:
  std::uint64_t bits_;
  int bank_columns_;
  int used_, zero_;  // columns of a span
};

struct Mma {
  MmaForm form;
  MmaShape shape;
  TensorAddress d;
  std::uint64_t a;  // a descriptor, or an address in tensor memory
  std::uint64_t b;
  bool a_in_tensor_memory;
  bool accumulates;
  bool shifts_a;                             // .ashift
  int d_scale;                               // D counts by 2 to the minus this
  std::vector<std::uint32_t> disabled = {};  // lanes of D, a bit each
  TensorAddress a_scales = {}, b_scales = {};
  std::optional<ColumnMask> zero_columns = {};
};

// `ctas`: the one, or both of a pair.
void execute(Machine& machine, const std::vector<Cta*>& ctas, const Mma& mma);

}  // namespace gpusim
