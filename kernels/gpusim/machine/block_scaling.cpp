// SPDX-License-Identifier: MIT
#include "block_scaling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "formats.h"

namespace gpusim {
namespace {

constexpr int kQuarters = kTmemLanes / kLanes;

float factor_value(ScaleType type, std::uint32_t bits) {
  if (type == ScaleType::kUe8m0) {
    return bits == 0xff ? std::numeric_limits<float>::quiet_NaN()
                        : std::ldexp(1.0F, static_cast<int>(bits) - 127);
  }
  if ((bits & 0x80) != 0) {
    throw Fault("tensor-memory", "a scale factor of type ue4m3 is " + hex(bits) +
                                     ", whose highest bit must be 0 (PTX ISA 5.2.3)");
  }
  return widen(kE4m3, bits);
}

// Of each row so many elements from `first` on.
std::vector<float> columns_of(const std::vector<float>& all, int rows, int k, int first,
                              int count) {
  std::vector<float> part;
  part.reserve(static_cast<std::size_t>(rows) * count);
  for (int row = 0; row < rows; ++row) {
    const auto begin = all.begin() + (static_cast<std::ptrdiff_t>(row) * k) + first;
    part.insert(part.end(), begin, begin + count);
  }
  return part;
}

}  // namespace

std::vector<float> read_scale_factors(Machine& machine, Cta& cta, const ScaleFactors& factors,
                                      const char* matrix) {
  const int groups = factors.halves ? 2 : 1;
  const int rows = factors.rows / groups;  // of a quarter
  const int columns = (rows + kLanes - 1) / kLanes;
  // What does not fit into a word goes on in another, behind those of 128 rows each.
  const int next_word = (rows + kTmemLanes - 1) / kTmemLanes * kQuarters;
  const int words = (factors.id + factors.blocks + 3) / 4;
  for (int word = 0; word < words; ++word) {
    cta.tmem.demand(factors.column + (word * next_word), columns);
    cta.tmem.reads(0, kQuarters, factors.column + (word * next_word), columns);
  }
  std::vector<float> values;
  values.reserve(static_cast<std::size_t>(factors.rows) * factors.blocks);
  for (int row = 0; row < factors.rows; ++row) {
    const int quarters = kQuarters / groups;
    const int first = row / rows * quarters;
    const int within = row % rows;
    for (int block = 0; block < factors.blocks; ++block) {
      const int byte = factors.id + block;
      const int column = factors.column + (within / kLanes) + (byte / 4 * next_word);
      const auto bits = [&](int quarter) {
        const int lane = (quarter * kLanes) + (within % kLanes);
        if (!cta.tmem.is_written(lane, column, 1)) {
          report_unwritten(machine.found, machine.program, lane, column, 1);
        }
        return cta.tmem.lane(lane)[column] >> (8 * (byte % 4)) & 0xff;
      };
      for (int quarter = first + 1; quarter < first + quarters; ++quarter) {
        if (bits(quarter) == bits(first)) continue;
        throw Fault("tensor-memory",
                    "scale factor " + std::to_string(block) + " of row " + std::to_string(row) +
                        " of " + matrix + " is " + hex(bits(first)) + " in quarter " +
                        std::to_string(first) + " of the lanes, but " + hex(bits(quarter)) +
                        " in quarter " + std::to_string(quarter) + ": they must be the same");
      }
      values.push_back(factor_value(factors.type, bits(first)));
    }
  }
  return values;
}

void multiply_scaled(const std::vector<float>& a, const std::vector<float>& a_scales,
                     const std::vector<float>& b, const std::vector<float>& b_scales, int m, int n,
                     int k, int blocks, float* product) {
  const int length = k / blocks;
  std::fill_n(product, static_cast<std::size_t>(m) * n, 0.0F);
  std::vector<float> part(static_cast<std::size_t>(m) * n);
  std::vector<double> across(static_cast<std::size_t>(n));
  for (int block = 0; block < blocks; ++block) {
    const int first = block * length;
    multiply(columns_of(a, m, k, first, length), columns_of(b, n, k, first, length), m, n, length,
             part.data());
    for (int j = 0; j < n; ++j)
      across[j] = b_scales[(static_cast<std::size_t>(j) * blocks) + block];
    for (int i = 0; i < m; ++i) {
      const double scale = a_scales[(static_cast<std::size_t>(i) * blocks) + block];
      const float* const from = part.data() + (static_cast<std::size_t>(i) * n);
      float* const sum = product + (static_cast<std::size_t>(i) * n);
      for (int j = 0; j < n; ++j) sum[j] += static_cast<float>(from[j] * (scale * across[j]));
    }
  }
}

}  // namespace gpusim
