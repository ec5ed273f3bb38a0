// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "cluster.h"

namespace gpusim {

// %tid.x, %ctaid.y, ... as the warp sees them (PTX ISA 10 "special registers").
void set_special(Warp& warp, const Program::Special& special, const LaunchShape& shape,
                 std::uint64_t parameters);

}  // namespace gpusim
