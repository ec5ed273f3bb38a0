// SPDX-License-Identifier: MIT
// Copies that go on by themselves: cp.async, cp.async.bulk and, for tensors, cp.async.bulk.tensor
// (PTX ISA 9.7.9.25 "asynchronous copy").
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cluster.h"
#include "reductions.h"
#include "tensor_map.h"

namespace gpusim {
namespace {

// Modifiers: 1 << operand, where that address is a 32-bit register; and for tensors
constexpr int kRankShift8 = 8;                // dimensions
constexpr std::int64_t kMulticast = 1 << 16;  // the last operand is a mask of CTAs
constexpr std::int64_t kByRows = 1 << 17;  // a column and four rows: tile::gather4, tile::scatter4
constexpr int kReductionShift = 20;        // 4 bits
constexpr int kNumberShift = 24;           // 4 bits: the type that is reduced

Reduction reduction_of(const Step& step) {
  return static_cast<Reduction>(step.op.modifiers >> kReductionShift & 15);
}

Number number_of(const Step& step) {
  return static_cast<Number>(step.op.modifiers >> kNumberShift & 15);
}

// A reduction of global memory is a relaxed atomic operation (PTX ISA 9.7.9.25.4.2).
void write(GlobalMemory& memory, Reduction reduction, std::uint64_t to, const std::byte* what,
           std::size_t bytes) {
  if (reduction == Reduction::kNone) {
    memory.write(to, what, bytes);
  } else {
    memory.update(to, bytes, {.order = Order::kRelaxed});
  }
}

// Copies, or reduces what is there already.
void put(Reduction reduction, Number type, std::byte* to, const std::byte* from,
         std::size_t bytes) {
  if (reduction == Reduction::kNone) {
    std::memcpy(to, from, bytes);
  } else {
    reduce(reduction, type, to, from, bytes);
  }
}

std::uint64_t address(Step& step, int operand, int lane) {
  const bool narrow = (step.op.modifiers >> operand & 1) != 0;
  const std::uint64_t base =
      narrow ? step.reg<std::uint32_t>(operand)[lane] : step.reg<std::uint64_t>(operand)[lane];
  return base + static_cast<std::uint64_t>(step.offset(operand));
}

// The bytes of a box: where each row of its innermost dimension begins in global memory. Rows and
// elements outside of the tensor have no place there.
struct Box {
  TensorMap map;
  std::array<std::int64_t, kMostDimensions> begin{};
  bool by_rows =
      false;  // tile::gather4, tile::scatter4: begin[1] to begin[4] are rows of their own
  [[nodiscard]] std::int64_t elements() const { return (by_rows ? 4 : 1) * map.box_elements(); }

  // Those that have a place in global memory.
  [[nodiscard]] std::uint64_t bytes_inside() const {
    std::int64_t elements = 1;
    if (by_rows) {
      const std::int64_t first = std::max<std::int64_t>(begin[0], 0);
      const std::int64_t last = std::min(begin[0] + map.box[0], map.sizes[0]);
      const auto rows =
          std::ranges::count_if(begin.begin() + 1, begin.end(),
                                [&](std::int64_t row) { return row >= 0 && row < map.sizes[1]; });
      return static_cast<std::uint64_t>(std::max<std::int64_t>(last - first, 0) * rows) *
             map.element_bytes;
    }
    for (std::size_t d = 0; d < static_cast<std::size_t>(map.rank); ++d) {
      const std::int64_t first = std::max<std::int64_t>(begin[d], 0);
      const std::int64_t last = std::min(begin[d] + map.box[d], map.sizes[d]);
      elements *= std::max<std::int64_t>(last - first, 0);
    }
    return static_cast<std::uint64_t>(elements) * map.element_bytes;
  }

  // Calls act(byte offset in the box, global address, bytes inside, offset of the first of those):
  // offsets in shared memory.
  template <class Act>
  void each_row(Act act) const {
    const std::int64_t row = map.box[0];
    const std::int64_t rows = elements() / row;
    const std::int64_t first = std::clamp<std::int64_t>(-begin[0], 0, row);
    const std::int64_t last = std::clamp<std::int64_t>(map.sizes[0] - begin[0], 0, row);
    for (std::int64_t i = 0; i < rows; ++i) {
      std::int64_t rest = i;
      std::uint64_t at = map.address;
      bool inside = first < last;
      for (std::size_t d = 1; d < static_cast<std::size_t>(map.rank); ++d) {
        std::int64_t coordinate = begin[d] + rest % map.box[d];
        if (by_rows) coordinate = begin[1 + static_cast<std::size_t>(i)];
        rest /= map.box[d];
        inside = inside && coordinate >= 0 && coordinate < map.sizes[d];
        at += static_cast<std::uint64_t>(coordinate * map.strides[d]);
      }
      const auto element = static_cast<std::int64_t>(map.element_bytes);
      at += static_cast<std::uint64_t>((begin[0] + first) * element);
      const auto shared = static_cast<std::int64_t>(map.shared_bytes);
      act(i * row * shared, at, inside ? (last - first) * element : 0, first * shared);
    }
  }
};

Box box_of(Step& step, int map_operand, int lane) {
  const std::uint64_t at = address(step, map_operand, lane);
  const std::byte* bytes = step.warp.machine().memory.at(at, kTensorMapBytes, 64);
  Box box{.map = decode_tensor_map(bytes)};
  const auto rank = static_cast<int>(step.op.modifiers >> kRankShift8 & 7);
  box.by_rows = (step.op.modifiers & kByRows) != 0;
  if (box.by_rows && (box.map.rank != 2 || box.map.box[1] != 1)) {
    throw Fault("tensor-map", "a copy of four rows is given a tensor map of " +
                                  std::to_string(box.map.rank) + " dimensions with boxes of " +
                                  std::to_string(box.map.box[1]) +
                                  " rows; it must have 2 and 1 (PTX ISA 5.5.6)");
  }
  if (!box.by_rows && rank != box.map.rank) {
    throw Fault("tensor-map", "a copy of " + std::to_string(rank) +
                                  " dimensions is given a tensor map of " +
                                  std::to_string(box.map.rank));
  }
  for (int i = 0; i < rank; ++i) {
    box.begin[static_cast<std::size_t>(i)] = step.reg<std::int32_t>(map_operand + 1 + i)[lane];
  }
  if (box.begin[0] % box.map.elements_together != 0) {
    throw Fault("tensor-map", "a copy begins at element " + std::to_string(box.begin[0]) +
                                  " of a row, but " + std::to_string(box.map.elements_together) +
                                  " of them are copied together");
  }
  box.begin[0] /= box.map.elements_together;
  return box;
}

void demand_alignment(std::uint32_t offset, std::uint32_t align, const char* what) {
  if (offset % align == 0) return;
  throw Fault("misaligned", std::string(what) + " at shared address " + hex(offset) +
                                " is not aligned to " + std::to_string(align) + " bytes");
}

// Race, if other lanes of the warp wrote what a lane copies, and it has not met them since.
void demand_met(Step& step, const Cluster::Place& from, std::int64_t bytes, int lane) {
  const std::uint64_t at =
      kSharedWindow | std::uint64_t{from.cta->rank()} << kRankShift | from.offset;
  const LaneOrder::Earlier earlier = step.warp.lanes.written(at, static_cast<std::uint64_t>(bytes),
                                                             static_cast<std::uint8_t>(lane));
  if (earlier.lane != LaneOrder::kNobody) report_lanes(step.warp, lane, false, earlier, true);
}

// Writes bytes of a box, 16 at a time, since that is what a swizzle keeps together.
void scatter(Cta& cta, std::uint32_t base, std::uint32_t swizzle, std::int64_t offset,
             const std::byte* from, std::int64_t bytes) {
  while (bytes > 0) {
    const auto at = base + static_cast<std::uint32_t>(offset);
    const auto piece = static_cast<std::uint32_t>(std::min<std::int64_t>(bytes, 16 - at % 16));
    const std::uint32_t to = swizzled(at, swizzle);
    std::byte* memory = cta.shared.at(to, piece, 1);
    if (from == nullptr) {
      std::memset(memory, 0, piece);
    } else {
      std::memcpy(memory, from, piece);
      from += piece;
    }
    cta.shared.wrote(to, piece);
    offset += piece;
    bytes -= piece;
  }
}

// Units of a tensor, each with its padding behind it, which stays as it was.
void scatter_units(Cta& cta, std::uint32_t base, const TensorMap& map, std::int64_t offset,
                   const std::byte* from, std::int64_t units) {
  if (map.shared_bytes == map.element_bytes) {
    return scatter(cta, base, map.swizzle, offset, from, units * map.element_bytes);
  }
  for (std::int64_t i = 0; i < units; ++i) {
    scatter(cta, base, map.swizzle, offset + (i * map.shared_bytes), from, map.element_bytes);
    if (from != nullptr) from += map.element_bytes;
  }
}

void gather(Cta& cta, std::uint32_t base, std::uint32_t swizzle, std::int64_t offset, std::byte* to,
            std::int64_t bytes) {
  while (bytes > 0) {
    const auto at = base + static_cast<std::uint32_t>(offset);
    const auto piece = static_cast<std::uint32_t>(std::min<std::int64_t>(bytes, 16 - at % 16));
    const std::uint32_t from = swizzled(at, swizzle);
    const std::byte* memory = cta.shared.at(from, piece, 1);
    cta.shared.demand_written(from, piece);
    std::memcpy(to, memory, piece);
    to += piece;
    offset += piece;
    bytes -= piece;
  }
}

// The CTAs that a multicast writes to, each at the same place, with its own mbarrier.
std::vector<Cta*> multicast_targets(Cluster& cluster, std::uint16_t mask) {
  std::vector<Cta*> targets;
  for (std::size_t i = 0; i < 16; ++i) {
    if ((mask >> i & 1) == 0) continue;
    if (i >= cluster.ctas.size()) {
      throw Fault("out-of-bounds", "a multicast names CTA " + std::to_string(i) +
                                       " of a cluster of " + std::to_string(cluster.ctas.size()));
    }
    targets.push_back(cluster.ctas[i].get());
  }
  return targets;
}

// Operands: destination, tensor map, coordinates, mbarrier, [mask of CTAs].
Flow tensor_load(Step& step) {
  const auto rank = static_cast<int>(step.op.modifiers >> kRankShift8 & 7);
  step.each_lane([&](int lane) {
    Machine& machine = step.warp.machine();
    Cluster& cluster = cluster_of(step);
    const Box box = box_of(step, 1, lane);
    const Cluster::Place to = cluster.place(address(step, 0, lane));
    const Cluster::Place barrier = cluster.place(address(step, 2 + rank, lane));
    demand_alignment(to.offset, 128, "the destination of a tensor copy");
    std::vector<std::pair<Cta*, Cta*>> targets;  // the CTA written to, and that of the mbarrier
    if ((step.op.modifiers & kMulticast) != 0) {
      const auto mask = step.reg<std::uint16_t>(3 + rank)[lane];
      for (Cta* cta : multicast_targets(cluster, mask)) targets.emplace_back(cta, cta);
    } else {
      targets.emplace_back(to.cta, barrier.cta);
    }
    ++machine.counters.tma_requests;
    const std::int64_t bytes = box.elements() * box.map.element_bytes;
    machine.counters.global_copied_in += box.bytes_inside();
    for (const auto& [cta, announced] : targets) {
      machine.counters.shared_copied_in += static_cast<std::uint64_t>(bytes);
      // A multicast is one transfer.
      const EngineWork work{
          .engine = Engine::kTma,
          .amount = cta == targets[0].first ? static_cast<std::uint64_t>(bytes) : 0};
      cluster.asynchronous.push(
          work, [&machine, &cluster, box, bytes, cta = cta, announced = announced,
                 offset = to.offset, barrier = barrier.offset] {
            const auto rank_bits = announced->rank() << kRankShift;
            box.each_row([&](std::int64_t at, std::uint64_t global, std::int64_t inside,
                             std::int64_t skipped) {
              const TensorMap& map = box.map;
              if (inside == 0) return scatter_units(*cta, offset, map, at, nullptr, map.box[0]);
              const auto count = static_cast<std::uint64_t>(inside);
              const std::byte* from = machine.memory.at(global, count, 1);
              machine.memory.read(global, count);
              const std::int64_t before = skipped / map.shared_bytes;
              const std::int64_t units = inside / map.element_bytes;
              const std::int64_t behind = skipped + (units * map.shared_bytes);
              scatter_units(*cta, offset, map, at, nullptr, before);
              scatter_units(*cta, offset, map, at + skipped, from, units);
              scatter_units(*cta, offset, map, at + behind, nullptr, map.box[0] - before - units);
            });
            cluster.arrive(rank_bits | barrier, 0, -bytes);
          });
    }
  });
  return Flow::kNext;
}

AsyncGroups::Counter begin_bulk(Step& step, int lane) {
  return step.warp.bulks[static_cast<std::size_t>(lane)].begin();
}

Number number_of(const TensorMap& map) {
  switch (map.type) {
    case TensorMap::Type::kU32:
      return Number::kU32;
    case TensorMap::Type::kS32:
      return Number::kS32;
    case TensorMap::Type::kU64:
      return Number::kU64;
    case TensorMap::Type::kS64:
      return Number::kS64;
    case TensorMap::Type::kF16:
      return Number::kF16;
    case TensorMap::Type::kBf16:
      return Number::kBf16;
    case TensorMap::Type::kF32:
      return Number::kF32;
    case TensorMap::Type::kF64:
      return Number::kF64;
    default:
      throw Fault("tensor-map", "a reduction is given a tensor map of element type " +
                                    std::to_string(static_cast<int>(map.type)) +
                                    ", which has none");
  }
}

// Operands: tensor map, coordinates, source.
Flow tensor_store(Step& step) {
  const auto rank = static_cast<int>(step.op.modifiers >> kRankShift8 & 7);
  const Reduction reduction = reduction_of(step);
  step.each_lane([&](int lane) {
    Machine& machine = step.warp.machine();
    Cluster& cluster = cluster_of(step);
    const Box box = box_of(step, 0, lane);
    const Number type = reduction == Reduction::kNone ? Number::kU32 : number_of(box.map);
    const Cluster::Place from = cluster.place(address(step, 1 + rank, lane));
    demand_alignment(from.offset, 128, "the source of a tensor copy");
    if (box.map.shared_bytes != box.map.element_bytes) {
      throw Fault("tensor-map",
                  "a copy to global memory of elements with padding between them is "
                  "not executed yet (PTX ISA 5.5.1.1.1)");
    }
    demand_met(step, from, box.elements() * box.map.element_bytes, lane);
    ++machine.counters.tma_requests;
    machine.counters.shared_copied_out += box.bytes_inside();
    machine.counters.global_copied_out += box.bytes_inside();
    cluster.asynchronous.push(
        {.engine = Engine::kTma, .amount = box.bytes_inside()},
        [&machine, &cluster, box, from, reduction, type, group = begin_bulk(step, lane)] {
          std::vector<std::byte> image(
              static_cast<std::size_t>(box.elements() * box.map.element_bytes));
          const auto read = [&](std::int64_t at, std::uint64_t global, std::int64_t inside,
                                std::int64_t skipped) {
            if (inside == 0) return;
            (void)machine.memory.at(global, static_cast<std::uint64_t>(inside), 1);
            gather(*from.cta, from.offset, box.map.swizzle, at + skipped, image.data() + at,
                   inside);
          };
          const auto put_row = [&](std::int64_t at, std::uint64_t global, std::int64_t inside,
                                   std::int64_t /*skipped*/) {
            if (inside == 0) return;
            const auto bytes = static_cast<std::size_t>(inside);
            std::byte* to = machine.memory.at(global, bytes, 1);
            write(machine.memory, reduction, global, image.data() + at, bytes);
            put(reduction, type, to, image.data() + at, bytes);
          };
          box.each_row(read);
          group->has_read();
          box.each_row(put_row);
          --*group;
          cluster.happened();
        });
  });
  return Flow::kNext;
}

// Operands: destination, source, bytes, mbarrier, [mask of CTAs].
Flow bulk_load(Step& step) {
  step.each_lane([&](int lane) {
    Machine& machine = step.warp.machine();
    Cluster& cluster = cluster_of(step);
    const Cluster::Place to = cluster.place(address(step, 0, lane));
    const std::uint64_t from = address(step, 1, lane);
    const std::uint32_t bytes = step.reg<std::uint32_t>(2)[lane];
    const Cluster::Place barrier = cluster.place(address(step, 3, lane));
    demand_alignment(to.offset, 16, "the destination of a bulk copy");
    demand_alignment(bytes, 16, "the size of a bulk copy");
    std::vector<std::pair<Cta*, Cta*>> targets;  // the CTA written to, and that of the mbarrier
    if ((step.op.modifiers & kMulticast) != 0) {
      const auto mask = step.reg<std::uint16_t>(4)[lane];
      for (Cta* cta : multicast_targets(cluster, mask)) targets.emplace_back(cta, cta);
    } else {
      targets.emplace_back(to.cta, barrier.cta);
    }
    ++machine.counters.tma_requests;
    machine.counters.global_copied_in += bytes;
    for (const auto& [cta, announced] : targets) {
      machine.counters.shared_copied_in += bytes;
      const std::uint64_t at = std::uint64_t{announced->rank()} << kRankShift | barrier.offset;
      const EngineWork work{.engine = Engine::kTma, .amount = cta == targets[0].first ? bytes : 0};
      cluster.asynchronous.push(
          work, [&machine, &cluster, cta = cta, offset = to.offset, from, bytes, at] {
            const std::byte* source = machine.memory.at(from, bytes, 16);
            machine.memory.read(from, bytes);
            std::memcpy(cta->shared.at(offset, bytes, 16), source, bytes);
            cta->shared.wrote(offset, bytes);
            cluster.arrive(at, 0, -static_cast<std::int64_t>(bytes));
          });
    }
  });
  return Flow::kNext;
}

// Between the CTAs of a cluster. Operands: destination, source, bytes, mbarrier.
Flow bulk_between(Step& step) {
  const Reduction reduction = reduction_of(step);
  const Number type = number_of(step);
  step.each_lane([&](int lane) {
    Machine& machine = step.warp.machine();
    Cluster& cluster = cluster_of(step);
    const Cluster::Place to = cluster.place(address(step, 0, lane));
    const Cluster::Place from = cluster.place(address(step, 1, lane));
    const std::uint32_t bytes = step.reg<std::uint32_t>(2)[lane];
    const std::uint64_t barrier = address(step, 3, lane);
    demand_alignment(to.offset, 16, "the destination of a bulk copy");
    demand_alignment(from.offset, 16, "the source of a bulk copy");
    demand_alignment(bytes, 16, "the size of a bulk copy");
    demand_met(step, from, bytes, lane);
    ++machine.counters.tma_requests;
    machine.counters.distributed_copied += bytes;
    const EngineWork work{.engine = Engine::kNetwork, .amount = bytes};
    cluster.asynchronous.push(work, [&cluster, to, from, bytes, barrier, reduction, type] {
      const std::byte* source = from.cta->shared.at(from.offset, bytes, 16);
      from.cta->shared.demand_written(from.offset, bytes);
      std::byte* target = to.cta->shared.at(to.offset, bytes, 16);
      if (reduction != Reduction::kNone) to.cta->shared.demand_written(to.offset, bytes);
      put(reduction, type, target, source, bytes);
      to.cta->shared.wrote(to.offset, bytes);
      cluster.arrive(barrier, 0, -static_cast<std::int64_t>(bytes));
    });
  });
  return Flow::kNext;
}

// Operands: destination, source, bytes, and with kMasked which bytes of each 16 are copied.
constexpr std::int64_t kMasked = kMulticast;
constexpr std::uint32_t kWhole = 0xffff;
Flow bulk_store(Step& step) {
  const Reduction reduction = reduction_of(step);
  const Number type = number_of(step);
  step.each_lane([&](int lane) {
    Machine& machine = step.warp.machine();
    Cluster& cluster = cluster_of(step);
    const std::uint64_t to = address(step, 0, lane);
    const Cluster::Place from = cluster.place(address(step, 1, lane));
    const std::uint32_t bytes = step.reg<std::uint32_t>(2)[lane];
    demand_alignment(from.offset, 16, "the source of a bulk copy");
    demand_alignment(bytes, 16, "the size of a bulk copy");
    const bool masked = (step.op.modifiers & kMasked) != 0;
    const std::uint32_t mask = masked ? step.reg<std::uint16_t>(3)[lane] : kWhole;
    demand_met(step, from, bytes, lane);
    ++machine.counters.tma_requests;
    machine.counters.shared_copied_out += bytes;
    machine.counters.global_copied_out += bytes;
    cluster.asynchronous.push(
        {.engine = Engine::kTma, .amount = bytes}, [&machine, &cluster, to, from, bytes, reduction,
                                                    type, mask, group = begin_bulk(step, lane)] {
          const std::byte* source = from.cta->shared.at(from.offset, bytes, 16);
          from.cta->shared.demand_written(from.offset, bytes);
          from.cta->shared.is_visited();
          group->has_read();
          std::byte* const target = machine.memory.at(to, bytes, 16);
          write(machine.memory, reduction, to, source, bytes);
          if (mask == kWhole) {
            put(reduction, type, target, source, bytes);
          } else {
            for (std::uint32_t i = 0; i < bytes; ++i) {
              if ((mask >> (i % 16) & 1) != 0) target[i] = source[i];
            }
          }
          --*group;
          cluster.happened();
        });
  });
  return Flow::kNext;
}

// Operands: destination, source, bytes copied; modifiers >> 8: the rest of so many is zero.
Flow cp_async(Step& step) {
  const auto size = static_cast<std::uint32_t>(step.op.modifiers >> 8);
  step.each_lane([&](int lane) {
    Machine& machine = step.warp.machine();
    Cluster& cluster = cluster_of(step);
    const Cluster::Place to = cluster.place(address(step, 0, lane));
    const std::uint64_t from = address(step, 1, lane);
    const std::uint32_t bytes = std::min(size, step.reg<std::uint32_t>(2)[lane]);
    const AsyncGroups::Counter group = step.warp.copies[static_cast<std::size_t>(lane)].begin();
    machine.counters.global_copied_in += bytes;
    machine.counters.shared_copied_in += size;
    // Checked when issued: the fault belongs to this instruction.
    (void)to.cta->shared.at(to.offset, size, size);
    if (bytes > 0) (void)machine.memory.at(from, bytes, size);
    const EngineWork work{.engine = Engine::kAsyncCopy, .amount = bytes};
    cluster.asynchronous.push(
        work,
        [&machine, &cluster, to, from, bytes, size, group] {
          std::byte* memory = to.cta->shared.at(to.offset, size, size);
          std::memset(memory, 0, size);
          if (bytes > 0) std::memcpy(memory, machine.memory.at(from, bytes, size), bytes);
          machine.memory.read(from, bytes);
          to.cta->shared.wrote(to.offset, size);
          --*group;
          cluster.happened();
        },
        Proxy::kGeneric);  // only bulk copies are of the asynchronous proxy
  });
  return Flow::kNext;
}

template <std::array<AsyncGroups, kLanes> Warp::* kGroups>
Flow commit_group(Step& step) {
  step.each_lane([&](int lane) { (step.warp.*kGroups)[static_cast<std::size_t>(lane)].commit(); });
  return Flow::kNext;
}

// Modifiers: groups that may be under way; -1: not even what is not committed. kOfSources: their
// sources only.
constexpr std::int64_t kOfSources = 1 << 16;

template <std::array<AsyncGroups, kLanes> Warp::* kGroups>
Flow wait_group(Step& step) {
  bool waits = false;
  const bool all = step.op.modifiers < 0;
  const bool sources = !all && (step.op.modifiers & kOfSources) != 0;
  const auto allowed = static_cast<std::size_t>(all ? 0 : step.op.modifiers & (kOfSources - 1));
  step.each_lane([&](int lane) {
    AsyncGroups& groups = (step.warp.*kGroups)[static_cast<std::size_t>(lane)];
    waits = waits || (sources ? groups.reading(allowed) : groups.under_way(allowed, all));
  });
  if (!waits) return Flow::kNext;
  step.fragment.waits_for = "asynchronous copies";
  return Flow::kWait;
}

// cp.async.mbarrier.arrive: the thread arrives when what it has issued so far is complete. Operand:
// the mbarrier. Modifier kNoinc: the arrival was counted when the mbarrier was initialised.
constexpr std::int64_t kNoinc = 1 << 8;

void arrive_when_done(Cluster& cluster, std::uint64_t barrier,
                      std::vector<AsyncGroups::Counter> groups) {
  const bool done = std::ranges::all_of(groups, [](const auto& group) { return *group == 0; });
  if (done) {
    for (const auto& group : groups) acquire(group->done());
    return cluster.arrive(barrier, 1, 0);
  }
  cluster.asynchronous.push({}, [&cluster, barrier, groups = std::move(groups)]() mutable {
    arrive_when_done(cluster, barrier, std::move(groups));
  });
}

Flow cp_async_arrive(Step& step) {
  step.each_lane([&](int lane) {
    Cluster& cluster = cluster_of(step);
    const std::uint64_t at = address(step, 0, lane);
    if ((step.op.modifiers & kNoinc) == 0) ++cluster.mbarrier(at).pending;
    arrive_when_done(cluster, at, step.warp.copies[static_cast<std::size_t>(lane)].so_far());
  });
  return Flow::kNext;
}

}  // namespace

void register_bulk_copies(Registry& registry) {
  registry["cp.async.bulk.tensor.load"] = tensor_load;
  registry["cp.async.bulk.tensor.store"] = tensor_store;
  registry["cp.async.bulk.load"] = bulk_load;
  registry["cp.async.bulk.between"] = bulk_between;
  registry["cp.async.bulk.store"] = bulk_store;
  registry["cp.async.bulk.commit_group"] = commit_group<&Warp::bulks>;
  registry["cp.async.bulk.wait_group"] = wait_group<&Warp::bulks>;
  registry["cp.async"] = cp_async;
  registry["cp.async.commit_group"] = commit_group<&Warp::copies>;
  registry["cp.async.wait_group"] = wait_group<&Warp::copies>;
  registry["cp.async.mbarrier.arrive"] = cp_async_arrive;
}

}  // namespace gpusim
