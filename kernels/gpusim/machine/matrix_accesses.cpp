// SPDX-License-Identifier: MIT
// Matrices between shared memory and the registers of a warp: ldmatrix, stmatrix, movmatrix (PTX
// ISA 9.7.14.5.15 to 9.7.14.5.17). A matrix has rows of 16 bytes, whose addresses the lanes give:
// lane 8 * n + r, or 16 * n + r where a matrix has 16 rows, that of row r of matrix n.
#include <array>
#include <cstdint>
#include <cstring>
#include <string>

#include "aligned.h"
#include "cluster.h"

namespace gpusim {
namespace {

constexpr std::uint32_t kRowBytes = 16;
constexpr std::int64_t kShared = 1;         // modifier: the address is one of shared memory
constexpr std::int64_t kNarrowAddress = 2;  // it is a 32-bit register
constexpr int kCountShift = 8;              // matrices

using Row = std::array<std::uint8_t, kRowBytes>;

int matrices(const Step& step) {
  return static_cast<int>(step.op.modifiers >> kCountShift & 7);
}

Cluster::Place row_place(Step& step, int operand, int lane) {
  const bool narrow = (step.op.modifiers & kNarrowAddress) != 0;
  const std::uint64_t base =
      narrow ? step.reg<std::uint32_t>(operand)[lane] : step.reg<std::uint64_t>(operand)[lane];
  const std::uint64_t at = base + static_cast<std::uint64_t>(step.offset(operand));
  if ((step.op.modifiers & kShared) == 0 && (at & kSharedWindow) == 0) {
    throw Fault("out-of-bounds", "the generic address " + hex(at) + " of lane " +
                                     std::to_string(lane) + " is not in shared memory");
  }
  return cluster_of(step).place(at);
}

Row read_row(Step& step, int operand, int lane) {
  const Cluster::Place place = row_place(step, operand, lane);
  Row row;
  std::memcpy(row.data(), place.cta->shared.at(place.offset, kRowBytes, kRowBytes), kRowBytes);
  place.cta->shared.demand_written(place.offset, kRowBytes);
  step.warp.machine().counters.shared_loaded += kRowBytes;
  return row;
}

void write_row(Step& step, int operand, int lane, const Row& row) {
  const Cluster::Place place = row_place(step, operand, lane);
  std::memcpy(place.cta->shared.at(place.offset, kRowBytes, kRowBytes), row.data(), kRowBytes);
  place.cta->shared.wrote(place.offset, kRowBytes);
  step.warp.machine().counters.shared_stored += kRowBytes;
}

// Where byte i of a register of a thread is in a matrix: its row, and the byte in it.
struct At {
  int row, byte;
};
using Fragment4 = At (*)(int lane, int i);

At as_rows(int lane, int i) {
  return {lane / 4, (lane % 4 * 4) + i};
}
// .trans of 16-bit elements: a thread has those of two rows in one column.
At as_columns(int lane, int i) {
  return {(lane % 4 * 2) + (i / 2), (lane / 4 * 2) + (i % 2)};
}
// .trans of the 16 rows of m16n16: the left 8 columns, or the right ones.
template <int kFirst>
At as_byte_columns(int lane, int i) {
  return {(lane % 4 * 4) + i, kFirst + (lane / 4)};
}
// .trans of m16n8, whose 8 stored rows have 16 bytes.
At as_byte_pairs(int lane, int i) {
  return {(lane % 4 * 2) + (i % 2), (lane / 4) + (i / 2 * 8)};
}

template <std::size_t kRows>
std::uint32_t gathered(const std::array<Row, kRows>& matrix, Fragment4 fragment, int lane) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const At at = fragment(lane, i);
    const std::uint32_t byte =
        matrix[static_cast<std::size_t>(at.row)][static_cast<std::size_t>(at.byte)];
    value |= byte << (8 * i);
  }
  return value;
}

// Elements of kBits, one after another, each to the low bits of a byte; what pads the row is not
// looked at. (CUTLASS, sm120 mainloops: 4 bits stand as 0000ABCD.)
template <int kBits>
Row unpacked(const Row& packed) {
  if constexpr (kBits == 8) return packed;
  Row row;
  for (std::size_t i = 0; i < row.size(); ++i) {
    const std::size_t first = i * kBits;
    unsigned bits = packed[first / 8];
    if (first / 8 + 1 < packed.size()) bits |= unsigned{packed[first / 8 + 1]} << 8;
    row[i] = static_cast<std::uint8_t>(bits >> (first % 8) & ((1U << kBits) - 1));
  }
  return row;
}

// Operands: a register for each matrix, the address.
template <Fragment4 kFragment, int kBits = 8>
Flow load8(Step& step) {
  if (!together(step, "ldmatrix")) return Flow::kConverge;
  const int count = matrices(step);
  std::array<std::array<Row, 8>, 4> all;
  for (int lane = 0; lane < 8 * count; ++lane) {
    all[static_cast<std::size_t>(lane / 8)][static_cast<std::size_t>(lane % 8)] =
        unpacked<kBits>(read_row(step, count, lane));
  }
  for (int n = 0; n < count; ++n) {
    for (int lane = 0; lane < kLanes; ++lane) {
      step.reg<std::uint32_t>(n)[lane] =
          gathered(all[static_cast<std::size_t>(n)], kFragment, lane);
    }
  }
  return Flow::kNext;
}

// Operands: two registers for each matrix, the address.
template <int kBits>
Flow load16(Step& step) {
  if (!together(step, "ldmatrix")) return Flow::kConverge;
  const int count = matrices(step);
  std::array<std::array<Row, 16>, 2> all;
  for (int lane = 0; lane < 16 * count; ++lane) {
    all[static_cast<std::size_t>(lane / 16)][static_cast<std::size_t>(lane % 16)] =
        unpacked<kBits>(read_row(step, 2 * count, lane));
  }
  for (int n = 0; n < count; ++n) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto& matrix = all[static_cast<std::size_t>(n)];
      step.reg<std::uint32_t>(2 * n)[lane] = gathered(matrix, as_byte_columns<0>, lane);
      step.reg<std::uint32_t>((2 * n) + 1)[lane] = gathered(matrix, as_byte_columns<8>, lane);
    }
  }
  return Flow::kNext;
}

std::array<Row, 8> scattered(const std::uint32_t* values, Fragment4 fragment) {
  std::array<Row, 8> matrix;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const At at = fragment(lane, i);
      matrix[static_cast<std::size_t>(at.row)][static_cast<std::size_t>(at.byte)] =
          static_cast<std::uint8_t>(values[lane] >> (8 * i));
    }
  }
  return matrix;
}

// Operands: a register for each matrix, the address.
template <Fragment4 kFragment>
Flow store8(Step& step) {
  if (!together(step, "stmatrix")) return Flow::kConverge;
  const int count = matrices(step);
  for (int n = 0; n < count; ++n) {
    const std::array<Row, 8> matrix = scattered(step.reg<std::uint32_t>(n), kFragment);
    for (int row = 0; row < 8; ++row) {
      write_row(step, count, (8 * n) + row, matrix[static_cast<std::size_t>(row)]);
    }
  }
  return Flow::kNext;
}

// Operands: d, a.
Flow transpose(Step& step) {
  if (!together(step, "movmatrix")) return Flow::kConverge;
  const std::array<Row, 8> matrix = scattered(step.reg<std::uint32_t>(1), as_rows);
  for (int lane = 0; lane < kLanes; ++lane) {
    step.reg<std::uint32_t>(0)[lane] = gathered(matrix, as_columns, lane);
  }
  return Flow::kNext;
}

}  // namespace

void register_matrix_accesses(Registry& registry) {
  registry["ldmatrix.m8n8"] = load8<as_rows>;
  registry["ldmatrix.m8n8.trans"] = load8<as_columns>;
  registry["ldmatrix.m8n16.b6x16_p32"] = load8<as_rows, 6>;
  registry["ldmatrix.m8n16.b4x16_p64"] = load8<as_rows, 4>;
  registry["ldmatrix.m16n16.trans"] = load16<8>;
  registry["ldmatrix.m16n16.trans.b6x16_p32"] = load16<6>;
  registry["ldmatrix.m16n16.trans.b4x16_p64"] = load16<4>;
  registry["stmatrix.m8n8"] = store8<as_rows>;
  registry["stmatrix.m8n8.trans"] = store8<as_columns>;
  registry["stmatrix.m16n8.trans"] = store8<as_byte_pairs>;
  registry["movmatrix.m8n8.trans"] = transpose;
}

}  // namespace gpusim
