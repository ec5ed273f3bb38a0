// SPDX-License-Identifier: MIT
#include "lodging.h"

#include <algorithm>
#include <utility>

#include "special_registers.h"

namespace gpusim {
namespace {

// Null if the launch is not recorded.
CtaRecord* add_record(Machine& machine, const Cta& cta, std::uint32_t threads) {
  if (machine.recorder == nullptr) return nullptr;
  const Dim& at = cta.index();
  const Dim& grid = machine.shape.grid;
  const std::uint64_t number = at.x + grid.x * (at.y + std::uint64_t{grid.y} * at.z);
  return &machine.recorder->add_cta(number, {at.x, at.y, at.z}, cta.rank(),
                                    (threads + kLanes - 1) / kLanes, 0);
}

}  // namespace

Lodging make_cluster(Machine& machine, const Dim& index, std::uint32_t number,
                     std::uint32_t slot_of_device, std::uint64_t parameters,
                     std::vector<std::unique_ptr<CtaMemory>>& vacant) {
  const LaunchShape& shape = machine.shape;
  const auto threads = static_cast<std::uint32_t>(shape.block.count());
  const auto warps =
      static_cast<std::uint32_t>((threads + kLanes - 1) / kLanes * shape.cluster.count());
  Lodging lodging;
  lodging.cluster = std::make_unique<Cluster>(shape.cluster, 3 * warps);
  Cluster* const cluster = lodging.cluster.get();
  cluster->index = index;
  cluster->slot = slot_of_device;
  std::uint32_t slot = 0;
  const Clock start = latest;
  for (std::uint32_t rank = 0; rank < shape.cluster.count(); ++rank) {
    const Dim in_cluster = at_index(rank, shape.cluster);
    const Dim place{.x = index.x * shape.cluster.x + in_cluster.x,
                    .y = index.y * shape.cluster.y + in_cluster.y,
                    .z = index.z * shape.cluster.z + in_cluster.z};
    if (vacant.empty()) {
      lodging.memories.push_back(std::make_unique<CtaMemory>(machine.program.static_shared_bytes +
                                                             shape.dynamic_shared_bytes));
    } else {
      lodging.memories.push_back(std::move(vacant.back()));
      vacant.pop_back();
      lodging.memories.back()->shared.renew();
      lodging.memories.back()->tmem.renew();
    }
    auto cta = std::make_unique<Cta>(*cluster, rank, place, *lodging.memories.back());
    CtaRecord* const record = add_record(machine, *cta, threads);
    for (std::uint32_t first = 0; first < threads; first += kLanes) {
      const std::uint32_t count = std::min<std::uint32_t>(kLanes, threads - first);
      const Mask mask = count == kLanes ? kAllLanes : (Mask{1} << count) - 1;
      auto& files = lodging.memories.back()->registers;
      if (files.size() <= first / kLanes) {
        files.push_back(std::make_unique<RegisterFile>(machine.program));
      } else {
        files[first / kLanes]->renew();
      }
      cta->warps.push_back(
          std::make_unique<Warp>(machine, *cta, cta->missed, static_cast<int>(first / kLanes), mask,
                                 *files[first / kLanes], machine.program.watched.size()));
      Warp& warp = *cta->warps.back();
      warp.agent.now = {.slot = slot++, .clock = start};
      warp.agent.cta = rank;
      warp.agent.cluster = number;
      warp.agent.warp = warp.id();
      if (record != nullptr) {
        warp.agent.record = record;
        warp.agent.knows.reached.cycle = record->begin;
      }
      warp.agent.tick();
      for (Agent* agent : {&warp.load_agent, &warp.store_agent}) {
        *agent = warp.agent;
        const std::uint32_t turn = agent == &warp.load_agent ? 1 : 2;
        agent->now = {.slot = (turn * warps) + warp.agent.now.slot, .clock = start};
        agent->by_itself = true;
        agent->proxy = Proxy::kAsync;
      }
      for (const Program::Special& special : machine.program.specials) {
        set_special(warp, special, shape, parameters);
      }
      if (machine.program.local_bytes > 0) {
        auto& local = lodging.locals.emplace_back(machine.program.local_bytes * kLanes);
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
          warp.place<std::uint64_t>(machine.program.local_base)[lane] =
              reinterpret_cast<std::uint64_t>(local.data() + lane * machine.program.local_bytes);
        }
      }
    }
    cluster->ctas.push_back(std::move(cta));
  }
  return lodging;
}

}  // namespace gpusim
