// SPDX-License-Identifier: MIT
// Integer, logic, shift, comparison and floating-point instructions (PTX ISA 9.7.1 to 9.7.8).
#include "lanes.h"

namespace gpusim {

void register_arithmetic(Registry& registry) {
  register_integers(registry);
  register_bits(registry);
  register_comparisons(registry);
  register_floats(registry);
  register_halves(registry);
}

}  // namespace gpusim
