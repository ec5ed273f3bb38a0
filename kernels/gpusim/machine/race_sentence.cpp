// SPDX-License-Identifier: MIT
#include "race_sentence.h"

#include <string_view>

namespace gpusim {
namespace {

// One of the two sides.
struct Side {
  std::uint32_t pc, cluster, cta;
  std::int32_t warp, lane;
  bool by_itself;
};

bool is_global(const Race& race) {
  return std::string_view(race.memory) == "global";
}

std::string cta_of(const Machine& machine, const Side& side, bool in_grid) {
  if (!in_grid) return "CTA " + std::to_string(side.cta) + " of its cluster";
  const Dim& shape = machine.shape.cluster;
  const Dim& grid = machine.shape.grid;
  const Dim cluster =
      at_index(side.cluster, {.x = grid.x / shape.x, .y = grid.y / shape.y, .z = grid.z / shape.z});
  const Dim inside = at_index(side.cta, shape);
  return "CTA (" + std::to_string((cluster.x * shape.x) + inside.x) + ", " +
         std::to_string((cluster.y * shape.y) + inside.y) + ", " +
         std::to_string((cluster.z * shape.z) + inside.z) + ")";
}

std::string who(const Machine& machine, const Side& side, bool in_grid) {
  std::string text = side.by_itself ? "what was begun by " : "";
  if (side.lane >= kLanes) {
    text += "several lanes of ";
  } else if (side.lane >= 0) {
    text += "lane " + std::to_string(side.lane) + " of ";
  }
  return text + "warp " + std::to_string(side.warp) + " of " + cta_of(machine, side, in_grid) +
         ", " + machine.program.texts[side.pc];
}

std::string where(const Machine& machine, const Race& race) {
  if (is_global(race)) return machine.memory.describe(race.offset);
  const bool shared = std::string_view(race.memory) == "shared";
  return std::string(race.memory) + " memory at " +
         (shared ? hex(race.offset) : "column " + std::to_string(race.offset / 4 % kTmemColumns));
}

std::string why(const Race& race) {
  if (race.unfenced) return ", but no fence.proxy.async lies between them";
  if (race.lane >= 0) return ", and the lanes of the warp have not met between them";
  return race.why.empty() ? "" : ": " + race.why;
}

// Of an act at a barrier, or in the shared memory of another CTA.
std::string where_done(const Race& race) {
  const std::string_view about = race.memory;
  if (about == "mbarrier") return "at the mbarrier at " + hex(race.offset);
  if (about == "barrier") return "at barrier " + std::to_string(race.offset);
  return "in the shared memory of CTA " + std::to_string(race.offset) + " of its cluster";
}

const char* access(bool writes) {
  return writes ? "a write" : "a read";
}

}  // namespace

std::string sentence(const Machine& machine, const Race& race) {
  const Side later{.pc = race.pc,
                   .cluster = race.cluster,
                   .cta = race.cta,
                   .warp = race.warp,
                   .lane = race.lane,
                   .by_itself = race.by_itself};
  const Side earlier{.pc = race.earlier_pc,
                     .cluster = race.earlier_cluster,
                     .cta = race.earlier_cta,
                     .warp = race.earlier_warp,
                     .lane = race.earlier_lane,
                     .by_itself = race.earlier_by_itself};
  if (race.earlier != nullptr) {
    return where_done(race) + ", what was done by " + who(machine, later, false) +
           ", is in no order with " + race.earlier + " by " + who(machine, earlier, false);
  }
  const bool in_grid = is_global(race);
  return std::string(access(race.writes)) + " of " + where(machine, race) + " by " +
         who(machine, later, in_grid) +
         (race.unfenced ? ", is ordered after " : ", is in no order with ") +
         access(race.earlier_wrote) + " by " + who(machine, earlier, in_grid) + why(race);
}

}  // namespace gpusim
