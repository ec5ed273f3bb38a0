// SPDX-License-Identifier: MIT
// setmaxnreg: warps give registers back to the CTA's pool, and take others from it (PTX ISA
// 9.7.19.5). The pool begins empty: every thread has what the kernel was compiled for.
#include <cstdint>
#include <string>

#include "cluster.h"

namespace gpusim {
namespace {

// Modifiers: the count.
template <bool kIncreases>
Flow set_most_registers(Step& step) {
  Warp& warp = step.warp;
  const std::uint32_t at_start = warp.machine().program.most_registers;
  if (at_start == 0) return Flow::kNext;  // ptxas ignores it, too, where it does not know
  if ((warp.live() & ~step.fragment.mask) != 0) return Flow::kConverge;
  const std::uint32_t has = warp.most_registers == 0 ? at_start : warp.most_registers;
  const auto wants = static_cast<std::uint32_t>(step.op.modifiers);
  if (kIncreases ? wants < has : wants > has) {
    throw Fault("registers", std::string("setmaxnreg.") + (kIncreases ? "inc" : "dec") + " to " +
                                 std::to_string(wants) + " registers, but a thread has " +
                                 std::to_string(has));
  }
  Cta& cta = warp.cta();
  const std::int64_t more = (std::int64_t{wants} - has) * kLanes;
  if (more > cta.free_registers) {
    step.fragment.waits_for = std::to_string(more) + " registers of its CTA's pool, which has " +
                              std::to_string(cta.free_registers);
    return Flow::kWait;
  }
  cta.free_registers -= more;
  warp.most_registers = wants;
  if (!kIncreases) cluster_of(step).happened();
  return Flow::kNext;
}

}  // namespace

void register_register_pool(Registry& registry) {
  registry["setmaxnreg.inc"] = set_most_registers<true>;
  registry["setmaxnreg.dec"] = set_most_registers<false>;
}

}  // namespace gpusim
