// SPDX-License-Identifier: MIT
// Scale factors of the block-scaled kinds of tcgen05.mma (PTX ISA 9.7.16.10.7): each is common to a
// block of elements along K of a row of A, or of a column of B.
#pragma once

#include <vector>

#include "cluster.h"
#include "instruction_descriptor.h"

namespace gpusim {

// Where the factors of a matrix are. 32 rows have a column of tensor memory, 4 factors of a row a
// word of it; every quarter of the lanes has the same.
struct ScaleFactors {
  int column;
  int id;  // the first byte of the word
  ScaleType type;
  int blocks;
  int rows;
  // B of an MMA whose D has halves (layout B): the lower two quarters of the lanes have the factors
  // of the first half of the rows here, the upper two those of the second.
  bool halves;
};

// Row by row. Fault if copies of a factor differ.
[[nodiscard]] std::vector<float> read_scale_factors(Machine& machine, Cta& cta,
                                                    const ScaleFactors& factors,
                                                    const char* matrix);

// product[m, n] = sum over blocks of (a[m, block] . b[n, block]) a_scales[m, block]
// b_scales[n, block]: each block in float, scaled exactly, then rounded to float.
void multiply_scaled(const std::vector<float>& a, const std::vector<float>& a_scales,
                     const std::vector<float>& b, const std::vector<float>& b_scales, int m, int n,
                     int k, int blocks, float* product);

}  // namespace gpusim
