// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cluster.h"

namespace gpusim {

// A cluster, with what it needs.
struct Lodging {
  std::vector<std::unique_ptr<CtaMemory>> memories;
  std::vector<std::vector<std::byte>> locals;
  std::unique_ptr<Cluster> cluster;
};

// A cluster that has not begun: number `number`, at `index`, in a slot of the device. What it needs
// comes from `vacant`, where that is not empty.
[[nodiscard]] Lodging make_cluster(Machine& machine, const Dim& index, std::uint32_t number,
                                   std::uint32_t slot_of_device, std::uint64_t parameters,
                                   std::vector<std::unique_ptr<CtaMemory>>& vacant);

}  // namespace gpusim
