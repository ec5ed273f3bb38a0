// SPDX-License-Identifier: MIT
// Matrix operands as the tensor cores read them: from shared memory through a descriptor, in the
// canonical layouts (PTX ISA 9.7.15.5 "wgmma", 9.7.16.4 "tcgen05 shared memory descriptor").
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cluster.h"

namespace gpusim {

inline constexpr int kOperandBytes = 32;  // of one row: K elements

enum class Element : std::uint8_t {
  kF16,
  kBf16,
  kTf32,
  kE4m3,
  kE5m2,
  kE2m3,
  kE3m2,
  kE2m1,
  kS8,
  kU8
};

[[nodiscard]] int element_bytes(Element type);
[[nodiscard]] const char* name_of(Element type);
[[nodiscard]] float element_value(Element type, std::uint32_t bits);

struct SharedDescriptor {
  std::uint32_t start;
  std::uint32_t leading;  // bytes between two cores along the leading dimension
  std::uint32_t stride;   // along the other
  std::uint32_t swizzle;  // 0 none, 1 32 bytes, 2 64, 3 128
};

// Rows of K elements as float, row by row. `mn_major`: rows stand side by side in memory.
// `rows` is a multiple of 16 bytes of elements.
// Fault if the matrix reaches memory that is not there or was never written.
[[nodiscard]] std::vector<float> read_operand(Cta& cta, const SharedDescriptor& descriptor,
                                              int first_row, int rows, Element type, bool mn_major);

// 16 bytes of a row, the `piece`-th of them.
void read_piece(Cta& cta, const SharedDescriptor& descriptor, int row, int piece,
                std::uint32_t* to);

// d[m, n] = a[m, :] . b[n, :] + (accumulate ? d[m, n] : 0), each product and sum in float.
void multiply(const std::vector<float>& a, const std::vector<float>& b, int m, int n, int k,
              float* product);

// Does this wgmma add to what is in D? (Else it only writes D.)
[[nodiscard]] bool wgmma_accumulates(Warp& warp, const Operand* operands, const Op& op);

void register_tcgen05(Registry& registry);
void register_wgmma(Registry& registry);

}  // namespace gpusim
