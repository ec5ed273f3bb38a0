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
inline constexpr int kPieceBytes = 16;    // of a row; a swizzle keeps them together

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
  kU8,
  kE2m1Pairs  // two in a byte, as the kinds mxf4 and mxf4nvf4 have them
};

enum class Result : std::uint8_t { kF32, kF16, kS32 };

// Of types of whole bytes.
[[nodiscard]] int element_bytes(Element type);
[[nodiscard]] const char* name_of(Element type);
[[nodiscard]] float element_value(Element type, std::uint32_t bits);

// Elements in 16 bytes of shared memory; in a word of tensor memory it is a quarter. Elements of 4
// and 6 bits are padded to so many as of 8, but for kE2m1Pairs (PTX ISA 9.7.16.10.4.2).
[[nodiscard]] int elements_of_piece(Element type);

// The elements of a word of tensor memory as float.
void widen_word(Element type, std::uint32_t word, float* to);

struct SharedDescriptor {
  std::uint32_t start;
  std::uint32_t leading;      // bytes between two cores along the leading dimension
  std::uint32_t stride;       // along the other
  std::uint32_t swizzle;      // as swizzled() has it
  std::uint32_t pattern = 0;  // where a swizzle's pattern begins, in bytes from a multiple of 1024
  bool second_chunk = false;  // `leading` is the address of what is past 128 bytes of a row
};

// Rows of `pieces` pieces along K as float, row by row. `mn_major`: rows stand side by side in
// memory; `rows` is a multiple of a piece's elements then.
// Fault if the matrix reaches memory that is not there or was never written.
[[nodiscard]] std::vector<float> read_operand(Cta& cta, const SharedDescriptor& descriptor,
                                              int first_row, int rows, Element type, bool mn_major,
                                              int pieces = kOperandBytes / kPieceBytes);

// The first `bytes` of the `piece`-th 16 bytes of a row.
void read_piece(Cta& cta, const SharedDescriptor& descriptor, int row, int piece, int bytes,
                std::uint32_t* to);

// d[m, n] = a[m, :] . b[n, :] + (accumulate ? d[m, n] : 0), each product and sum in float.
void multiply(const std::vector<float>& a, const std::vector<float>& b, int m, int n, int k,
              float* product);

// Does this wgmma add to what is in D? (Else it only writes D.)
[[nodiscard]] bool wgmma_accumulates(Warp& warp, const Operand* operands, const Op& op);

// The sum of an integer and what one instruction multiplied, which is exact in float: at most 64
// products of less than 2^16.
[[nodiscard]] std::uint32_t add_integers(std::uint32_t before, float sum, bool saturates);

// A register of D after a wgmma or mma, which multiplied `values`: neighbours of a row, two of them
// if D is f16. `before`: what was in it, if it is accumulated.
[[nodiscard]] std::uint32_t accumulate(Result result, bool saturates, std::uint32_t before,
                                       bool accumulates, const float* values);

void register_mma(Registry& registry);
void register_tcgen05(Registry& registry);
void register_wgmma(Registry& registry);

}  // namespace gpusim
