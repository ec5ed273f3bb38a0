// SPDX-License-Identifier: MIT
// clusterlaunchcontrol: a running cluster takes the work of one that has not begun (PTX ISA
// 9.7.13.17 and 9.7.13.18). The response of 16 bytes is opaque in PTX; here it has the first CTA's
// x, y and z, and whether there is one.
#include <array>
#include <cstdint>
#include <cstring>
#include <string>

#include "cluster.h"

namespace gpusim {
namespace {

// Modifiers of try_cancel: 1 << operand, where that address is a 32-bit register; and
constexpr std::int64_t kToAll = 4;  // every CTA of the cluster gets the response

using Response = std::array<std::uint32_t, 4>;
constexpr std::uint32_t kCancelled = 1;
constexpr std::uint32_t kNone = 2;

std::uint64_t address(Step& step, int operand, int lane) {
  const bool narrow = (step.op.modifiers >> operand & 1) != 0;
  const std::uint64_t base =
      narrow ? step.reg<std::uint32_t>(operand)[lane] : step.reg<std::uint64_t>(operand)[lane];
  return base + static_cast<std::uint64_t>(step.offset(operand));
}

// A chip refuses as soon as it has nothing more to hand out, or something else to do first: of the
// clusters that stay pending, each then begins by itself.
Response respond(Machine& machine, Cluster& cluster) {
  constexpr int kRefuses = 8;  // one time of so many
  if (!cluster.may_cancel) {
    throw Fault("cluster-launch",
                "clusterlaunchcontrol.try_cancel is executed again after one that failed, which "
                "PTX leaves undefined");
  }
  const auto number = machine.chance() % kRefuses == 0 ? std::nullopt : machine.pending.take();
  if (!number) {
    cluster.may_cancel = false;
    return {0, 0, 0, kNone};
  }
  const Dim index = at_index(*number, grid_of_clusters(machine.shape));
  const Dim& shape = machine.shape.cluster;
  return {index.x * shape.x, index.y * shape.y, index.z * shape.z, kCancelled};
}

// Operands: where the response goes, the mbarrier.
Flow try_cancel(Step& step) {
  step.each_lane([&](int lane) {
    Machine& machine = step.warp.machine();
    Cluster& cluster = cluster_of(step);
    const Cluster::Place to = cluster.place(address(step, 0, lane));
    const Cluster::Place barrier = cluster.place(address(step, 1, lane));
    (void)to.cta->shared.at(to.offset, sizeof(Response), sizeof(Response));
    const Response response = respond(machine, cluster);
    const auto tell = [&](Cta& cta) {
      const std::uint64_t at = std::uint64_t{cta.rank()} << kRankShift | barrier.offset;
      cluster.asynchronous.push({}, [&cluster, &cta, offset = to.offset, at, response] {
        std::memcpy(cta.shared.at(offset, sizeof(response), sizeof(response)), response.data(),
                    sizeof(response));
        cta.shared.wrote(offset, sizeof(response));
        cluster.arrive(at, 0, -static_cast<std::int64_t>(sizeof(response)));
      });
    };
    if ((step.op.modifiers & kToAll) == 0) return tell(*to.cta);
    for (const auto& cta : cluster.ctas) tell(*cta);
  });
  return Flow::kNext;
}

Response response_of(Step& step, int operand, int lane) {
  Response response;
  std::memcpy(response.data(),
              step.reg<std::byte>(operand) + (static_cast<std::size_t>(lane) * sizeof(response)),
              sizeof(response));
  if (response[3] != kCancelled && response[3] != kNone) {
    throw Fault("cluster-launch",
                "clusterlaunchcontrol.query_cancel is given what is no response "
                "of clusterlaunchcontrol.try_cancel");
  }
  return response;
}

// Operands: p, response.
Flow is_cancelled(Step& step) {
  Mask& p = step.predicate(0);
  step.each_lane([&](int lane) {
    const Mask bit = Mask{1} << lane;
    p = response_of(step, 1, lane)[3] == kCancelled ? p | bit : p & ~bit;
  });
  return Flow::kNext;
}

// Operands: x, y, z, response; sinks for what is not wanted.
Flow first_cta(Step& step) {
  step.each_lane([&](int lane) {
    const Response response = response_of(step, 3, lane);
    if (response[3] != kCancelled) {
      throw Fault("cluster-launch",
                  "the first CTA of a response that cancelled nothing is asked for, which PTX "
                  "leaves undefined; ask is_canceled first");
    }
    for (int axis = 0; axis < 3; ++axis) {
      if (!step.sink(axis)) {
        step.reg<std::uint32_t>(axis)[lane] = response[static_cast<std::size_t>(axis)];
      }
    }
  });
  return Flow::kNext;
}

}  // namespace

void register_cluster_launches(Registry& registry) {
  registry["clusterlaunchcontrol.try_cancel"] = try_cancel;
  registry["clusterlaunchcontrol.is_canceled"] = is_cancelled;
  registry["clusterlaunchcontrol.get_first_ctaid"] = first_cta;
}

}  // namespace gpusim
