// SPDX-License-Identifier: MIT
// The recorder's part of the Python module.
#pragma once

#include <nanobind/nanobind.h>

namespace gpusim {

void add_recorder(nanobind::module_& module);

}  // namespace gpusim
