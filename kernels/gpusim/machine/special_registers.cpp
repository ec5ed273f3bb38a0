// SPDX-License-Identifier: MIT
#include "special_registers.h"

#include <algorithm>
#include <string>

namespace gpusim {
namespace {

template <class T>
void fill(Warp& warp, std::int32_t at, T value) {
  std::fill_n(warp.place<T>(at), kLanes, value);
}

std::uint32_t component(const Dim& dim, char axis) {
  return axis == 'x' ? dim.x : axis == 'y' ? dim.y : dim.z;
}

}  // namespace

void set_special(Warp& warp, const Program::Special& special, const LaunchShape& shape,
                 std::uint64_t parameters) {
  Cta& cta = warp.cta();
  const std::string& name = special.name;
  const char axis = name.back();
  const Dim& block = shape.block;
  const auto set = [&](std::uint32_t value) { fill(warp, special.at, value); };
  if (name.starts_with("%tid.")) {
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
      const std::uint32_t thread = static_cast<std::uint32_t>(warp.id()) * kLanes + lane;
      warp.place<std::uint32_t>(special.at)[lane] = component(at_index(thread, block), axis);
    }
  } else if (name == "%laneid") {
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
      warp.place<std::uint32_t>(special.at)[lane] = lane;
    }
  } else if (name.starts_with("%ntid.")) {
    set(component(block, axis));
  } else if (name.starts_with("%ctaid.")) {
    set(component(cta.index(), axis));
  } else if (name.starts_with("%nctaid.")) {
    set(component(shape.grid, axis));
  } else if (name == "%warpid") {
    set(static_cast<std::uint32_t>(warp.id()));
  } else if (name == "%cluster_ctarank") {
    set(cta.rank());
  } else if (name == "%cluster_nctarank") {
    set(static_cast<std::uint32_t>(shape.cluster.count()));
  } else if (name.starts_with("%cluster_ctaid.")) {
    set(component(at_index(cta.rank(), shape.cluster), axis));
  } else if (name.starts_with("%cluster_nctaid.")) {
    set(component(shape.cluster, axis));
  } else if (name.starts_with("%clusterid.")) {
    set(component(cta.cluster().index, axis));
  } else if (name.starts_with("%nclusterid.")) {
    set(component(shape.grid, axis) / component(shape.cluster, axis));
  } else if (name == "%dynamic_smem_size") {
    set(static_cast<std::uint32_t>(shape.dynamic_shared_bytes));
  } else if (name == "%total_smem_size") {
    set(static_cast<std::uint32_t>(cta.shared.size() - kReservedShared));
  } else if (name == "%shared") {  // where the kernel's shared variables begin
    set((cta.rank() << kRankShift) + kReservedShared);
  } else if (name == "%parameters") {
    fill(warp, special.at, parameters);
  } else if (name.starts_with("%lanemask_")) {
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
      const std::uint32_t own = 1U << lane;
      const std::uint32_t less = own - 1;
      const std::string which = name.substr(10);
      warp.place<std::uint32_t>(special.at)[lane] = which == "eq"   ? own
                                                    : which == "lt" ? less
                                                    : which == "le" ? less | own
                                                    : which == "gt" ? ~(less | own)
                                                                    : ~less;
    }
  } else if (name == "%smid") {
    set(cta.cluster().slot * static_cast<std::uint32_t>(shape.cluster.count()) + cta.rank());
  } else if (name == "%clock" || name == "%globaltimer_lo") {
    set(0);
  } else if (name == "%clock64" || name == "%globaltimer") {
    fill(warp, special.at, std::uint64_t{0});
  } else {
    throw Fault("special-register", name + " is not known here");
  }
}

}  // namespace gpusim
