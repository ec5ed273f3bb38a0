// SPDX-License-Identifier: MIT
#pragma once

#include <nanobind/nanobind.h>

namespace ts::python {

void bind_config(nanobind::module_& module);

}  // namespace ts::python
