// SPDX-License-Identifier: MIT
// Instructions with .aligned, which all 32 threads of a warp execute together.
#pragma once

#include <string>

#include "cluster.h"

namespace gpusim {

// False: threads of the warp have not come yet. Fault if some never will.
[[nodiscard]] inline bool together(const Step& step, const char* name) {
  if ((step.warp.live() & ~step.fragment.mask) != 0) return false;
  if (step.mask == kAllLanes) return true;
  throw Fault("aligned", std::string(name) + " needs all 32 threads of the warp, and lanes " +
                             hex(step.mask) + " execute it");
}

}  // namespace gpusim
