// SPDX-License-Identifier: MIT
#include "tensor_core.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <string>

#include "block_scaling.h"
#include "formats.h"
#include "matrices.h"
#include "tensor_map.h"

namespace gpusim {
namespace {

// The banks of a CTA's part of D (PTX ISA 9.7.16.10.5, layouts A to G): `columns` of it stand side
// by side, the next ones below.
struct ResultLayout {
  int banks;
  int columns;
  int rows;
  bool spread;     // layouts C and F: every 16 rows take the half of 32 lanes
  int first_lane;  // of those

  ResultLayout(const Mma& mma, bool pair) : rows(mma.shape.m / (pair ? 2 : 1)) {
    const bool wide = rows == 128 || (rows == 64 && !pair && !mma.form.weight_stationary) ||
                      (rows == 64 && mma.form.sparse && pair);
    banks = wide ? 1 : 128 / rows;
    columns = mma.shape.n / banks;
    spread = rows == 64 && banks == 1;
    first_lane = mma.d.lane;
    if (first_lane != 0 && !(spread && first_lane == 16)) {
      throw Fault("descriptor", "D begins at lane " + std::to_string(first_lane) +
                                    " of tensor memory; " +
                                    (spread ? "it must be lane 0 or 16" : "it must be lane 0"));
    }
  }
  [[nodiscard]] int lane(int row, int bank) const {
    return spread ? (row / 16 * 32) + (row % 16) + first_lane : row + (rows * bank);
  }
};

void demand_written(Machine& machine, const Cta& cta, int lane, int column, int columns) {
  if (cta.tmem.is_written(lane, column, columns)) return;
  report_unwritten(machine.found, machine.program, lane, column, columns);
}

// A from tensor memory: a lane is a row, in the places of D's rows; a column holds 4 bytes of it.
// Each bank of D has an A of its own.
std::vector<float> tensor_memory_operand(Machine& machine, Cta& cta, const Mma& mma,
                                         const ResultLayout& layout, int bank, int ks) {
  const TensorAddress at = tensor_address(static_cast<std::uint32_t>(mma.a));
  if (at.lane != layout.first_lane) {
    throw Fault("descriptor", "A begins at lane " + std::to_string(at.lane) +
                                  " of tensor memory, but D at lane " +
                                  std::to_string(layout.first_lane));
  }
  const int each = elements_of_piece(mma.shape.a) / 4;
  const int columns = ks / each;
  cta.tmem.demand(at.column, columns);
  cta.tmem.reads(0, 4, at.column, columns);
  std::vector<float> values(static_cast<std::size_t>(layout.rows) * ks);
  for (int row = 0; row < layout.rows; ++row) {
    // .ashift: a row is the next one's, but for the last.
    const int lane = layout.lane(mma.shifts_a ? std::min(row + 1, layout.rows - 1) : row, bank);
    demand_written(machine, cta, lane, at.column, columns);
    const std::uint32_t* const words = cta.tmem.lane(lane) + at.column;
    float* const to = values.data() + (static_cast<std::size_t>(row) * ks);
    for (int i = 0; i < columns; ++i) {
      widen_word(mma.shape.a, words[i], to + (static_cast<std::ptrdiff_t>(i) * each));
    }
  }
  return values;
}

// Which majors and swizzles go together (PTX ISA 9.7.16.10.3).
void check_layout(Element type, const SharedDescriptor& descriptor, bool mn_major) {
  const bool atoms_of_32 = descriptor.swizzle == kSwizzle128Atom32;
  if (mn_major && (type == Element::kTf32) != atoms_of_32) {
    throw Fault(
        "descriptor",
        "an operand whose rows adjoin must be swizzled by 128 bytes in atoms of 32 if it is "
        "of tf32, and otherwise must not (PTX ISA 9.7.16.10.3)");
  }
  const bool narrow = type == Element::kE2m3 || type == Element::kE3m2 || type == Element::kE2m1;
  if (mn_major && narrow) {
    throw Fault("descriptor",
                "an operand whose rows adjoin has elements of 4 or 6 bits (PTX ISA 9.7.16.10.3)");
  }
}

std::vector<float> shared_operand(Cta& cta, std::uint64_t bits, int first, int rows, Element type,
                                  bool mn_major, int ks) {
  const SharedDescriptor descriptor = tcgen05_descriptor(bits);
  check_layout(type, descriptor, mn_major);
  return read_operand(cta, descriptor, first, rows, type, mn_major, ks / elements_of_piece(type));
}

// B with zeros where a mask says so. What it does not use is not read.
std::vector<float> masked_operand(Cta& cta, const Mma& mma, const ColumnMask& mask) {
  const MmaShape& shape = mma.shape;
  if (shape.b_mn_major) {
    throw Fault("descriptor", "a zero-column mask of a B whose rows adjoin is not executed yet");
  }
  std::vector<float> b;
  for (int row = 0; row < shape.n; ++row) {
    const std::optional<int> source = mask.source(row);
    const std::vector<float> values =
        source.has_value() ? shared_operand(cta, mma.b, *source, 1, shape.b, false, shape.k)
                           : std::vector<float>(static_cast<std::size_t>(shape.k));
    b.insert(b.end(), values.begin(), values.end());
  }
  return b;
}

// A word of D has one element, an f16 in its lower half. `product`: of this instruction.
std::uint32_t accumulate(const Mma& mma, std::uint32_t before, float product) {
  switch (mma.shape.result) {
    case Result::kF32:
      return std::bit_cast<std::uint32_t>(
          (mma.accumulates ? std::ldexp(std::bit_cast<float>(before), -mma.d_scale) : 0.0F) +
          product);
    case Result::kF16:
      return narrow(
          kF16,
          (mma.accumulates ? std::ldexp(from_f16(static_cast<std::uint16_t>(before)), -mma.d_scale)
                           : 0.0F) +
              product,
          Rounding::kNearestEven, false);
    case Result::kS32:
      return add_integers(mma.accumulates ? before : 0, product, mma.shape.saturates);
  }
  return 0;
}

ScaleFactors a_factors(const Mma& mma, const ResultLayout& layout) {
  return {.column = mma.a_scales.column,
          .id = mma.shape.a_scale,
          .type = mma.shape.scale,
          .blocks = mma.shape.blocks,
          .rows = layout.rows,
          .halves = false};
}

ScaleFactors b_factors(const Mma& mma, const ResultLayout& layout) {
  return {.column = mma.b_scales.column,
          .id = mma.shape.b_scale,
          .type = mma.shape.scale,
          .blocks = mma.shape.blocks,
          .rows = mma.shape.n,
          .halves = layout.banks == 2};
}

void count(Counters& counters, const Mma& mma) {
  const auto m = static_cast<std::uint64_t>(mma.shape.m);
  const auto n = static_cast<std::uint64_t>(mma.shape.n);
  constexpr std::array<const char*, 7> kNames{
      "tcgen05.f16",      "tcgen05.tf32", "tcgen05.f8f6f4",  "tcgen05.i8",
      "tcgen05.mxf8f6f4", "tcgen05.mxf4", "tcgen05.mxf4nvf4"};
  counters.multiplied(kNames.at(static_cast<std::size_t>(mma.form.kind)), 1,
                      2 * m * n * static_cast<std::uint64_t>(mma.shape.k));
  const auto row =
      static_cast<std::uint64_t>(mma.shape.k / elements_of_piece(mma.shape.a)) * kPieceBytes;
  const std::uint64_t result = 4 * m * n;
  counters.shared_mma += row * (mma.a_in_tensor_memory ? n : m + n);
  counters.tensor_mma_read +=
      (mma.a_in_tensor_memory ? row * m : 0) + (mma.accumulates ? result : 0);
  counters.tensor_mma_written += result;
}

}  // namespace

ColumnMask::ColumnMask(std::uint64_t bits, const MmaShape& shape)
    : bits_(bits),
      bank_columns_(shape.n * shape.m / 128),
      // The two are named the other way round in the ISA's table 45; its examples tell.
      used_(static_cast<int>(bits >> 48 & 255) + 1),
      zero_(static_cast<int>(bits >> 40 & 255) + 1) {
  const auto shift = static_cast<int>(bits >> 56 & 63);
  if (shift > shape.most_shift || shift > (shape.m == 32 ? 16 : 32)) {
    throw Fault("descriptor", "a zero-column mask shifts by " + std::to_string(shift) +
                                  " columns; the instruction descriptor allows " +
                                  std::to_string(shape.most_shift));
  }
  for (int bank = 0; bank < 128 / shape.m; ++bank) {
    const auto start = static_cast<int>(bits >> (8 * bank) & 255);
    const bool begins_with_zeros = (bits >> (32 + bank) & 1) != 0;
    if ((bits >> 39 & 1) != 0 && start >= (begins_with_zeros ? zero_ : used_)) {
      throw Fault("descriptor", "a zero-column mask skips " + std::to_string(start) +
                                    " columns, which is all of its first span");
    }
  }
}

std::optional<int> ColumnMask::source(int n) const {
  if ((bits_ >> 39 & 1) != 0) {
    const int bank = n / bank_columns_;
    const auto start = static_cast<int>(bits_ >> (8 * bank) & 255);
    const bool begins_with_zeros = (bits_ >> (32 + bank) & 1) != 0;
    const int at = ((n % bank_columns_) + start) % (used_ + zero_);
    if (begins_with_zeros ? at < zero_ : at >= used_) return std::nullopt;
  }
  return n + static_cast<int>(bits_ >> 56 & 63);
}

SharedDescriptor tcgen05_descriptor(std::uint64_t bits) {
  constexpr std::uint32_t kNone = ~0U;
  constexpr std::array<std::uint32_t, 8> kSwizzles{0,    kSwizzle128Atom32, 3, kNone, 2, kNone, 1,
                                                   kNone};
  const std::uint32_t swizzle = kSwizzles.at(bits >> 61);
  if (swizzle == kNone) {
    throw Fault("descriptor", "the matrix descriptor " + hex(bits) + " has the swizzle mode " +
                                  std::to_string(bits >> 61) + ", which is none");
  }
  if ((bits >> 46 & 7) != 1) {
    throw Fault("descriptor", "the matrix descriptor " + hex(bits) + " is not of version 1");
  }
  return {.start = static_cast<std::uint32_t>(bits & 0x3fff) << 4,
          .leading = static_cast<std::uint32_t>(bits >> 16 & 0x3fff) << 4,
          .stride = static_cast<std::uint32_t>(bits >> 32 & 0x3fff) << 4,
          .swizzle = swizzle,
          .pattern = static_cast<std::uint32_t>(bits >> 49 & 7) << 7,
          .second_chunk = (bits >> 52 & 1) != 0};
}

void execute(Machine& machine, const std::vector<Cta*>& ctas, const Mma& mma) {
  const MmaShape& shape = mma.shape;
  const auto pair = static_cast<int>(ctas.size());
  const bool scaled = is_block_scaled(mma.form.kind);
  const ResultLayout layout(mma, pair == 2);
  if (mma.shifts_a && layout.rows != 128) {
    throw Fault("descriptor", "a tcgen05.mma.ashift has M = " + std::to_string(shape.m) +
                                  "; it must be 128, or 256 of a pair of CTAs");
  }
  const int rows = layout.rows;
  const int n = shape.n;
  std::vector<float> b;
  for (Cta* cta : ctas) {
    const std::vector<float> part =
        mma.zero_columns.has_value()
            ? masked_operand(*cta, mma, *mma.zero_columns)
            : shared_operand(*cta, mma.b, 0, n / pair, shape.b, shape.b_mn_major, shape.k);
    b.insert(b.end(), part.begin(), part.end());
  }
  const float sign = shape.a_negated != shape.b_negated ? -1.0F : 1.0F;
  std::vector<float> product(static_cast<std::size_t>(rows) * n);
  for (std::size_t i = 0; i < ctas.size(); ++i) {
    Cta* const cta = ctas[i];
    cta->tmem.demand(mma.d.column, layout.columns);
    cta->tmem.writes(0, 4, mma.d.column, layout.columns);
    std::vector<float> a_scales;
    std::vector<float> b_scales;
    if (scaled) {
      a_scales = read_scale_factors(machine, *cta, a_factors(mma, layout), "A");
      b_scales = read_scale_factors(machine, *cta, b_factors(mma, layout), "B");
    }
    for (int bank = 0; bank < layout.banks; ++bank) {
      if (bank == 0 || mma.a_in_tensor_memory) {
        const std::vector<float> a =
            mma.a_in_tensor_memory
                ? tensor_memory_operand(machine, *cta, mma, layout, bank, shape.k)
                : shared_operand(*cta, mma.a, 0, rows, shape.a, shape.a_mn_major, shape.k);
        if (scaled) {
          multiply_scaled(a, a_scales, b, b_scales, rows, n, shape.k, shape.blocks, product.data());
        } else {
          multiply(a, b, rows, n, shape.k, product.data());
        }
      }
      for (int row = 0; row < rows; ++row) {
        const int lane = layout.lane(row, bank);
        // The second CTA of a pair has the second half of the mask.
        const std::size_t word = static_cast<std::size_t>(lane / 32) + (4 * i);
        if (word < mma.disabled.size() && (mma.disabled[word] >> (lane % 32) & 1) != 0) continue;
        const float* const from = product.data() + (static_cast<std::size_t>(row) * n) +
                                  (static_cast<std::size_t>(bank) * layout.columns);
        if (mma.accumulates) demand_written(machine, *cta, lane, mma.d.column, layout.columns);
        cta->tmem.mark_written(lane, mma.d.column, layout.columns);
        std::uint32_t* const d = cta->tmem.lane(lane) + mma.d.column;
        for (int column = 0; column < layout.columns; ++column) {
          d[column] = accumulate(mma, d[column], sign * from[column]);
        }
      }
    }
  }
  count(machine.counters, mma);
}

}  // namespace gpusim
