// SPDX-License-Identifier: MIT
//
// Which instruction set's kernels run: the best that this CPU has, unless a test asks for another.
#pragma once

#include <string>
#include <vector>

#include "kernel_table.h"

namespace ts {

const KernelTable& kernels();

// Names of the instruction sets that this CPU can run, best first.
std::vector<std::string> supported_isas();

// std::invalid_argument when this CPU cannot run it.
void select_isa(const std::string& name);

}  // namespace ts
