// SPDX-License-Identifier: MIT
// Stores and reductions into a CTA of the cluster that an mbarrier there announces, st.async and
// red.async (PTX ISA 9.7.9.12 and 9.7.13.7), and st.bulk, which fills (9.7.9.13).
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cluster.h"
#include "reductions.h"

namespace gpusim {
namespace {

// Modifiers: 1 << operand for the first operands, where that address is a 32-bit register; then
constexpr int kCountShift = 8;       // elements
constexpr int kBytesShift = 12;      // of one
constexpr int kReductionShift = 20;  // 4 bits, and
constexpr int kNumberShift = 24;     // 4 bits: the type that is reduced

std::uint64_t address(Step& step, int operand, int lane) {
  const bool narrow = (step.op.modifiers >> operand & 1) != 0;
  const std::uint64_t base =
      narrow ? step.reg<std::uint32_t>(operand)[lane] : step.reg<std::uint64_t>(operand)[lane];
  return base + static_cast<std::uint64_t>(step.offset(operand));
}

// Operands: address, mbarrier, values.
Flow store(Step& step) {
  const auto count = static_cast<std::size_t>(step.op.modifiers >> kCountShift & 15);
  const auto bytes = static_cast<std::size_t>(step.op.modifiers >> kBytesShift & 15);
  const auto reduction = static_cast<Reduction>(step.op.modifiers >> kReductionShift & 15);
  const auto number = static_cast<Number>(step.op.modifiers >> kNumberShift & 15);
  const auto size = static_cast<std::uint32_t>(count * bytes);
  step.each_lane([&](int lane) {
    Cluster& cluster = cluster_of(step);
    const Cluster::Place to = cluster.place(address(step, 0, lane));
    const std::uint64_t barrier = address(step, 1, lane);
    if (cluster.place(barrier).cta != to.cta) {
      throw Fault("mbarrier", "an asynchronous store goes to CTA " +
                                  std::to_string(to.cta->rank()) + ", but its mbarrier is in CTA " +
                                  std::to_string(cluster.place(barrier).cta->rank()));
    }
    (void)to.cta->shared.at(to.offset, size, size);
    std::vector<std::byte> values(size);
    for (std::size_t i = 0; i < count; ++i) {
      const std::byte* const lanes = step.reg<std::byte>(2 + static_cast<int>(i));
      std::memcpy(values.data() + (i * bytes), lanes + (static_cast<std::size_t>(lane) * bytes),
                  bytes);
    }
    Counters& counters = step.warp.machine().counters;
    (to.cta == &step.warp.cta() ? counters.shared_stored : counters.distributed_stored) += size;
    cluster.asynchronous.push(
        {.engine = Engine::kNetwork, .amount = size},
        [&cluster, to, barrier, size, reduction, number, values = std::move(values)] {
          std::byte* const memory = to.cta->shared.at(to.offset, size, size);
          if (reduction == Reduction::kNone) {
            std::memcpy(memory, values.data(), size);
            to.cta->shared.wrote(to.offset, size);
          } else {  // atomic: in no order with others, and yet no race
            reduce(reduction, number, memory, values.data(), size);
          }
          cluster.arrive(barrier, 0, -static_cast<std::int64_t>(size));
        },
        Proxy::kGeneric);
  });
  return Flow::kNext;
}

// Operands: address, bytes.
Flow fill(Step& step) {
  step.each_lane([&](int lane) {
    const Cluster::Place to = cluster_of(step).place(address(step, 0, lane));
    const std::uint64_t size = step.reg<std::uint64_t>(1)[lane];
    constexpr std::uint32_t kUnit = 8;
    if (size % kUnit != 0 || size > to.cta->shared.size()) {
      throw Fault("out-of-bounds", "st.bulk fills " + std::to_string(size) +
                                       " bytes, which must be a multiple of 8 that fits into the "
                                       "CTA's shared memory");
    }
    if (size == 0) return;
    const auto bytes = static_cast<std::uint32_t>(size);
    std::memset(to.cta->shared.at(to.offset, bytes, kUnit), 0, bytes);
    to.cta->shared.wrote(to.offset, bytes);
  });
  return Flow::kNext;
}

}  // namespace

void register_async_stores(Registry& registry) {
  registry["st.async"] = store;
  registry["st.bulk"] = fill;
}

}  // namespace gpusim
