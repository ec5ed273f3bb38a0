// SPDX-License-Identifier: MIT
#include "cluster.h"

#include <algorithm>
#include <cstring>
#include <tuple>

namespace gpusim {

TensorMemory::TensorMemory()
    : words_(static_cast<std::size_t>(kTmemLanes) * kTmemColumns, 0xffffffff),
      written_(words_.size(), 0),
      history_("tensor", std::size_t{4} * 4 * kTmemColumns) {}

void TensorMemory::reads(int quarter, int quarters, int column, int columns) {
  for (int i = quarter; i < quarter + quarters; ++i) {
    history_.read(static_cast<std::uint32_t>(4 * ((i * kTmemColumns) + column)),
                  static_cast<std::uint32_t>(4 * columns));
  }
}

void TensorMemory::writes(int quarter, int quarters, int column, int columns) {
  for (int i = column; i < column + columns; ++i) changed_.set(static_cast<std::size_t>(i));
  for (int i = quarter; i < quarter + quarters; ++i) {
    history_.write(static_cast<std::uint32_t>(4 * ((i * kTmemColumns) + column)),
                   static_cast<std::uint32_t>(4 * columns));
  }
}

namespace {

std::size_t word_at(int lane, int column) {
  return (static_cast<std::size_t>(lane) * kTmemColumns) + static_cast<std::size_t>(column);
}

}  // namespace

void TensorMemory::mark_written(int lane, int column, int columns) {
  std::fill_n(written_.data() + word_at(lane, column), columns, std::uint8_t{1});
}

bool TensorMemory::is_written(int lane, int column, int columns) const {
  const std::uint8_t* const flags = written_.data() + word_at(lane, column);
  return std::memchr(flags, 0, static_cast<std::size_t>(columns)) == nullptr;
}

void report_unwritten(Findings& findings, const Program& program, int lane, int column,
                      int columns) {
  findings.add("uninitialised", acting->pc, "tensor memory", [&] {
    return std::to_string(columns) + " columns of tensor memory from " + std::to_string(column) +
           " are read in lane " + std::to_string(lane) + ", and some were never written\n  " +
           "at " + program.texts[acting->pc] + ", CTA " + std::to_string(acting->cta) +
           " of its cluster, warp " + std::to_string(acting->warp);
  });
}

void TensorMemory::renew() {
  if (changed_.any()) {
    std::ranges::fill(words_, 0xffffffff);
    std::ranges::fill(written_, std::uint8_t{0});
  }
  changed_.reset();
  history_.forget();
  owner_ = {};
  relinquished = false;
  freed = {};
}

int TensorMemory::allocate(int columns) {
  for (int first = 0; first + columns <= kTmemColumns; first += columns) {
    const auto begin = owner_.begin() + first;
    if (std::any_of(begin, begin + columns, [](int owner) { return owner != 0; })) continue;
    std::fill(begin, begin + columns, first + 1);
    // What another allocation has left there is nobody's.
    for (int lane = 0; lane < kTmemLanes; ++lane) {
      std::fill_n(written_.data() + word_at(lane, first), columns, std::uint8_t{0});
    }
    return first;
  }
  return -1;
}

void TensorMemory::release(int column, int columns) {
  const bool whole =
      column >= 0 && column + columns <= kTmemColumns &&
      std::all_of(owner_.begin() + column, owner_.begin() + column + columns,
                  [column](int owner) { return owner == column + 1; }) &&
      (column + columns == kTmemColumns || *(owner_.begin() + column + columns) != column + 1);
  if (!whole) {
    throw Fault("tensor-memory", std::to_string(columns) + " columns of tensor memory from " +
                                     std::to_string(column) +
                                     " are freed, but no allocation is that");
  }
  std::fill(owner_.begin() + column, owner_.begin() + column + columns, 0);
}

void TensorMemory::demand(int column, int columns) const {
  if (column >= 0 && column + columns <= kTmemColumns &&
      std::none_of(owner_.begin() + column, owner_.begin() + column + columns,
                   [](int owner) { return owner == 0; })) {
    return;
  }
  throw Fault("tensor-memory", "columns " + std::to_string(column) + " to " +
                                   std::to_string(column + columns - 1) +
                                   " of tensor memory are used, but not all are allocated");
}

int TensorMemory::allocated() const {
  return static_cast<int>(std::ranges::count_if(owner_, [](int owner) { return owner != 0; }));
}

Asynchronous::Operation Asynchronous::begin(const EngineWork& work, Complete complete,
                                            Proxy proxy) {
  Operation operation{.complete = std::move(complete), .agent = *acting, .number = begun_++};
  operation.agent.proxy = proxy;
  operation.agent.by_itself = true;
  if (acting->record != nullptr) operation.end = acting->record->recorder->begin(work);
  // What the beginner does next is not known to the operation.
  acting->tick();
  return operation;
}

void Asynchronous::push(const EngineWork& work, Complete complete, Proxy proxy) {
  Operation operation = begin(work, std::move(complete), proxy);
  operation.waits = work.engine == Engine::kNone;
  if (operation.waits) operation.end = std::max(operation.end, first_of_engines());
  const std::uint32_t slot = next_++ % kSlots;
  // One more moment for what it does when it has read its source.
  operation.agent.become({.slot = first_slot_ + kMostQueues + slot, .clock = clocks_[slot] += 2});
  free_.push_back(std::move(operation));
}

void Asynchronous::push(std::uint32_t queue, const EngineWork& work, Complete complete) {
  queues_[queue].operations.push_back(begin(work, std::move(complete), Proxy::kAsync));
}

bool Asynchronous::empty() const {
  return free_.empty() && std::ranges::all_of(queues_, [](const auto& queue) {
           return queue.second.operations.empty();
         });
}

void Asynchronous::complete_free(std::size_t which) {
  Operation operation = std::move(free_[which]);
  free_[which] = std::move(free_.back());
  free_.pop_back();
  last_ = std::move(operation.agent);
  last_.knows.reached = {.cycle = operation.end, .pc = last_.pc};
  acting = &last_;
  operation.complete();
}

void Asynchronous::complete_queued(std::uint32_t number, Queue& queue) {
  const Operation operation = std::move(queue.operations.front());
  queue.operations.pop_front();
  // The queue goes on from what it knew, and from what its next operation's beginner knew.
  Agent agent = operation.agent;
  agent.knows.join(queue.agent.knows);
  agent.knows.reached = {.cycle = std::max(operation.end, agent.knows.reached.cycle),
                         .pc = agent.pc};
  const Clock before = std::max(queue.agent.now.clock, start_);
  agent.become({.slot = first_slot_ + number, .clock = before + 1});
  queue.agent = std::move(agent);
  acting = &queue.agent;
  operation.complete();
}

void Asynchronous::complete_one(std::mt19937_64& chance) {
  std::size_t choices = free_.size();
  for (const auto& [_, queue] : queues_) choices += queue.operations.empty() ? 0 : 1;
  std::size_t chosen = chance() % choices;
  if (chosen < free_.size()) return complete_free(chosen);
  chosen -= free_.size();
  for (auto& [number, queue] : queues_) {
    if (queue.operations.empty() || chosen-- > 0) continue;
    return complete_queued(number, queue);
  }
}

Asynchronous::First Asynchronous::first() const {
  First first;
  const auto consider = [&first](const Operation& operation, Cycle earliest, First at) {
    at.end = std::max(operation.end, earliest);
    at.number = operation.number;
    if (std::tie(at.end, at.number) < std::tie(first.end, first.number)) first = at;
  };
  for (std::size_t i = 0; i < free_.size(); ++i) consider(free_[i], 0, {.which = i});
  for (const auto& [number, queue] : queues_) {
    if (queue.operations.empty()) continue;
    const Cycle earliest = queue.agent.knows.reached.cycle;  // they complete in order
    consider(queue.operations.front(), earliest, {.queued = true, .which = number});
  }
  return first;
}

// When what only waits for others asks again. 0: there is no other.
Cycle Asynchronous::first_of_engines() const {
  Cycle end = 0;
  for (const Operation& operation : free_) {
    if (!operation.waits) end = end == 0 ? operation.end : std::min(end, operation.end);
  }
  return end;
}

void Asynchronous::complete_first() {
  const First next = first();
  if (!next.queued) return complete_free(next.which);
  const auto number = static_cast<std::uint32_t>(next.which);
  complete_queued(number, queues_[number]);
}

std::vector<std::string> texts_of(const Program& program, const Recent& recent) {
  std::vector<std::string> texts;
  for (const std::uint32_t pc : recent) texts.push_back(program.texts[pc]);
  return texts;
}

void Cta::end(Findings& findings) const {
  Knowledge all;
  for (const auto& warp : warps) all.join(warp->agent.knows);
  if (const Act* visit = shared.visits().unknown_to(all)) {
    report(*visit, Act::of(warps.front()->agent), "CTA", rank_, "the end of that CTA");
  }
  for (const auto& [offset, barrier] : mbarriers) {
    const std::int64_t bytes = barrier.expected_bytes;
    if (bytes == 0) continue;
    findings.add("mbarrier", offset, "bytes", [&, at = offset] {
      return "CTA " + std::to_string(rank_) + " of its cluster ends, and its mbarrier at " +
             hex(at) +
             (bytes > 0 ? " still expects " + std::to_string(bytes) + " bytes"
                        : " was brought " + std::to_string(-bytes) +
                              " bytes more than it had been told to expect");
    });
  }
}

Cluster::Place Cluster::place(std::uint64_t address) {
  const std::uint64_t window = address & ~kSharedWindow;
  const std::uint64_t rank = window >> kRankShift;
  if (rank >= ctas.size()) {
    throw Fault("out-of-bounds", "shared::cluster address " + hex(address) + " is in CTA " +
                                     std::to_string(rank) + " of a cluster of " +
                                     std::to_string(ctas.size()));
  }
  return {ctas[rank].get(), static_cast<std::uint32_t>(window & ((1U << kRankShift) - 1))};
}

const Mbarrier& Cluster::mbarrier_at(std::uint64_t address) {
  const Place at = place(address);
  const auto found = at.cta->mbarriers.find(at.offset);
  if (found == at.cta->mbarriers.end()) {
    throw Fault("mbarrier", "no mbarrier was initialised at shared address " + hex(at.offset) +
                                " of CTA " + std::to_string(at.cta->rank()));
  }
  return found->second;
}

Mbarrier& Cluster::mbarrier(std::uint64_t address) {
  const Mbarrier& barrier = mbarrier_at(address);
  const Place at = place(address);
  at.cta->shared.demand_written(at.offset, kMbarrierBytes);
  const bool remote = acting->proxy != Proxy::kGeneric || acting->cta != at.cta->rank();
  if (remote && !barrier.fenced) {
    report(Act::of(*acting), barrier.init, "mbarrier", at.offset,
           "its initialisation, since no fence.mbarrier_init lies between them,");
  }
  return const_cast<Mbarrier&>(barrier);
}

void Cluster::arrive(std::uint64_t address, std::int64_t count, std::int64_t expected_bytes) {
  Mbarrier& barrier = mbarrier(address);
  const Place at = place(address);
  const std::uint32_t offset = at.offset;
  if (acting->by_itself) at.cta->shared.is_visited();
  barrier.phases.arrive(offset);
  release(barrier.arriving);
  acting->tick();
  barrier.expected_bytes += expected_bytes;
  barrier.pending -= count;
  if (barrier.pending < 0) {
    throw Fault("mbarrier", "more threads arrive at an mbarrier than the " +
                                std::to_string(barrier.count) + " that it was initialised with");
  }
  if (barrier.pending == 0 && barrier.expected_bytes == 0) {
    barrier.phases.end(offset, barrier.arriving);
    barrier.pending = barrier.count;
    ++barrier.phase;
    barrier.completed.join(barrier.arriving);
    barrier.arriving.clear();
  }
  happened();
}

void report_lanes(Warp& warp, int lane, bool writes, const LaneOrder::Earlier& earlier,
                  bool by_itself) {
  const bool shared = (earlier.address & kSharedWindow) != 0;
  const Agent& agent = warp.agent;
  races->add({.memory = shared ? "shared" : "global",
              .offset = shared ? earlier.address & ((1U << kRankShift) - 1) : earlier.address,
              .pc = agent.pc,
              .cta = agent.cta,
              .warp = agent.warp,
              .by_itself = by_itself,
              .earlier_pc = earlier.pc,
              .earlier_cta = agent.cta,
              .earlier_warp = agent.warp,
              .earlier_by_itself = false,
              .earlier_wrote = earlier.wrote,
              .writes = writes,
              .unfenced = false,
              .cluster = agent.cluster,
              .earlier_cluster = agent.cluster,
              .lane = lane,
              .earlier_lane = earlier.lane,
              .why = {}});
}

}  // namespace gpusim
