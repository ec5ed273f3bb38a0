// SPDX-License-Identifier: MIT
// What is said of a race.
#pragma once

#include <string>

#include "cluster.h"

namespace gpusim {

[[nodiscard]] std::string sentence(const Machine& machine, const Race& race);

}  // namespace gpusim
