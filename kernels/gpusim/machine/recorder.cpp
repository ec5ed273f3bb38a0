// SPDX-License-Identifier: MIT
#include "recorder.h"

#include <algorithm>

#include "warp.h"

namespace gpusim {
namespace {

constexpr std::size_t kFewestSpans = 64;  // of a warp or an engine, however many there are

Activity activity_of(Work work) {
  switch (work) {
    case Work::kLoad:
    case Work::kStore:
    case Work::kAtomic:
      return Activity::kMemory;
    case Work::kTensorMemory:
      return Activity::kTensorMemory;
    case Work::kCopy:
      return Activity::kCopy;
    case Work::kMma:
      return Activity::kMma;
    case Work::kSynchronise:
      return Activity::kSynchronise;
    default:
      return Activity::kCompute;
  }
}

Cycle cycles(std::uint64_t amount, const Rate& rate) {
  return (amount + rate.amount - 1) / rate.amount;
}

// Takes its turn at what is free from `free` on; when the data is there.
Cycle take(Cycle& free, Cycle from, std::uint64_t amount, const Rate& rate) {
  free = std::max(free, from) + cycles(amount, rate);
  return free + rate.latency;
}

// Every second one becomes part of the one before.
void halve(std::vector<Operation>& operations) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < operations.size(); i += 2, ++kept) {
    Operation merged = operations[i];
    if (i + 1 < operations.size()) {
      const Operation& next = operations[i + 1];
      merged.free = next.free;
      merged.end = std::max(merged.end, next.end);
      merged.amount += next.amount;
      merged.operations += next.operations;
    }
    operations[kept] = merged;
  }
  operations.resize(kept);
}

}  // namespace

// True if the span is now part of the last one.
bool Timeline::merge(const Span& span) {
  if (spans_.empty() || spans_.back().end != span.begin) return false;
  Span& last = spans_.back();
  const bool goes_on = last.activity == span.activity && span.activity != Activity::kWait &&
                       last.pieces == 1 && span.pieces == 1;
  const bool is_short = last.end - last.begin < resolution_ || span.end - span.begin < resolution_;
  if (!goes_on && !is_short) return false;
  const Cycle end = span.end;
  const Cycle begin = last.begin;
  const Cycle waited = last.waited + span.waited;
  if (goes_on) {
    last.longest += span.longest;
  } else {
    const std::uint64_t pieces = last.pieces + span.pieces;
    if (span.longest > last.longest) last = span;
    last.pieces = pieces;
  }
  last.begin = begin;
  last.end = end;
  last.waited = waited;
  return true;
}

void Timeline::add(const Span& span, std::size_t most) {
  if (merge(span)) return;
  spans_.push_back(span);
  while (spans_.size() > most) {
    resolution_ *= 2;
    for (const Span& old : std::exchange(spans_, {})) {
      if (!merge(old)) spans_.push_back(old);
    }
  }
}

void Recorder::begin(const Program& program, const Counters& counters) {
  program_ = &program;
  counters_ = &counters;
}

CtaRecord& Recorder::add_cta(std::uint64_t number, std::array<std::uint32_t, 3> index,
                             std::uint32_t rank, std::uint32_t warps, Cycle cycle) {
  CtaRecord& cta = *ctas_.emplace_back(std::make_unique<CtaRecord>());
  cta.index = index;
  cta.rank = rank;
  cta.drawn = drawn_.contains(number);
  cta.begin = cta.end = cycle;
  cta.warps.resize(warps);
  for (auto& warp : cta.warps) warp.end = cycle;
  cta.recorder = this;
  while (warps_.size() < warps) {
    warps_.emplace_back().executed.resize(program_->ops.size(), 0);
  }
  return cta;
}

bool Recorder::stalls(Warp& warp, std::uint32_t pc) {
  CtaRecord& cta = *warp.agent.record;
  auto& record = cta.warps[static_cast<std::size_t>(warp.id())];
  if (record.loads.empty()) return false;
  const Cycle now = warp.agent.knows.reached.cycle;
  if (now >= record.loaded) {
    record.loads.clear();
    return false;
  }
  const Op& op = program_->ops[pc];
  const CtaRecord::Load* last = nullptr;
  for (std::uint32_t i = 0; i < op.count; ++i) {
    const std::int32_t at = program_->operands[op.first + i].at;
    for (const CtaRecord::Load& load : record.loads) {
      if (load.at == at && load.ready > now && (last == nullptr || load.ready > last->ready)) {
        last = &load;
      }
    }
  }
  if (last == nullptr) return false;
  cta.noted = 0;
  waited(warp, pc, last->pc, now, last->ready);
  warp.agent.knows.reached = {.cycle = last->ready, .pc = pc};
  return true;
}

void Recorder::begins(Warp& warp, std::uint32_t pc) {
  warp.agent.record->noted = 0;
  warp.agent.knows.reached.pc = pc;
  began_ = warp.agent.knows.reached.cycle;
}

void Recorder::executed(Warp& warp, std::uint32_t pc) {
  CtaRecord& cta = *warp.agent.record;
  Moment& reached = warp.agent.knows.reached;
  if (reached.cycle > began_) waited(warp, pc, reached.pc, began_, reached.cycle);
  const Op& op = program_->ops[pc];
  const auto id = static_cast<std::size_t>(warp.id());
  const auto work = static_cast<std::size_t>(op.work);
  Cycle begin = reached.cycle;
  if (op.work != Work::kNone) {
    CtaRecord::Scheduler& scheduler = cta.schedulers[id % cta.schedulers.size()];
    begin = std::max({begin, scheduler.free, scheduler.pipes[work]});
    scheduler.free = begin + 1;
    scheduler.pipes[work] = begin + model_.pipe_cycles[work];
    ++warps_[id].executed[pc];
    warps_[id].busy[work] += begin + 1 - reached.cycle;
    if (cta.drawn) {
      const Cycle length = begin + 1 - reached.cycle;
      cta.warps[id].timeline.add({.begin = reached.cycle,
                                  .end = begin + 1,
                                  .activity = activity_of(op.work),
                                  .pc = pc,
                                  .longest = length},
                                 std::max(kFewestSpans, spans_ / (cta.warps.size() + kEngines)));
    }
    reached.cycle = begin + 1;
  }
  reached.pc = pc;
  (void)move(warp, op, pc, begin);
  cta.warps[id].end = reached.cycle;
  cta.end = std::max(cta.end, reached.cycle);
}

Recorder::Moved Recorder::moved_since() {
  const Counters& now = *counters_;
  const Moved all{
      .shared = now.shared_loaded + now.shared_stored + now.shared_atomic,
      .distributed = now.distributed_loaded + now.distributed_stored + now.distributed_atomic,
      .global = now.global_loaded + now.global_stored + now.global_atomic,
      .tensor_loaded = now.tensor_loaded,
      .tensor_stored = now.tensor_stored};
  const Moved before = std::exchange(before_, all);
  return {.shared = all.shared - before.shared,
          .distributed = all.distributed - before.distributed,
          .global = all.global - before.global,
          .tensor_loaded = all.tensor_loaded - before.tensor_loaded,
          .tensor_stored = all.tensor_stored - before.tensor_stored};
}

Cycle Recorder::move(Warp& warp, const Op& op, std::uint32_t pc, Cycle begin) {
  const Moved moved = moved_since();
  CtaRecord& cta = *warp.agent.record;
  Cycle ready = begin;
  const auto through = [&](Cycle& free, std::uint64_t bytes, const Rate& rate) {
    if (bytes > 0) ready = std::max(ready, take(free, begin, bytes, rate));
  };
  through(cta.shared, moved.shared, model_.shared);
  through(cta.distributed, moved.distributed, model_.distributed);
  through(cta.global, moved.global, model_.global);
  // Until tcgen05.wait, at which the warp joins what this agent knows.
  const auto by_itself = [&](Agent& agent, std::uint64_t bytes) {
    if (bytes == 0) return;
    const Cycle there = take(cta.tensor_memory, begin, bytes, model_.tensor_memory);
    agent.knows.reach({.cycle = there, .pc = pc});
  };
  by_itself(warp.load_agent, moved.tensor_loaded);
  by_itself(warp.store_agent, moved.tensor_stored);
  if (ready > begin && (op.work == Work::kLoad || op.work == Work::kAtomic)) {
    // Of ld and atom: as many operands as the vector has elements are results (accesses.cpp).
    const auto results = std::min<std::uint64_t>(op.count, op.modifiers >> 8 & 15);
    fills(warp, {program_->operands.data() + op.first, results}, ready);
  }
  return ready;
}

void Recorder::fills(Warp& warp, std::span<const Operand> registers, Cycle ready) {
  auto& record = warp.agent.record->warps[static_cast<std::size_t>(warp.id())];
  const Cycle now = warp.agent.knows.reached.cycle;
  std::erase_if(record.loads, [now](const CtaRecord::Load& load) { return load.ready <= now; });
  for (const Operand& is : registers) {
    if (is.at >= 0) record.loads.push_back({.at = is.at, .pc = warp.agent.pc, .ready = ready});
  }
  record.loaded = std::max(record.loaded, ready);
}

void Recorder::waited(Warp& warp, std::uint32_t pc, std::uint32_t cause, Cycle from, Cycle until) {
  CtaRecord& cta = *warp.agent.record;
  WaitTotals& totals = waits_[{.warp = warp.id(), .pc = pc, .cause = cause, .barrier = cta.noted}];
  ++totals.times;
  totals.cycles += until - from;
  totals.longest = std::max(totals.longest, until - from);
  auto& record = cta.warps[static_cast<std::size_t>(warp.id())];
  record.end = until;
  cta.end = std::max(cta.end, until);
  if (!cta.drawn) return;
  record.timeline.add({.begin = from,
                       .end = until,
                       .activity = Activity::kWait,
                       .pc = pc,
                       .cause = cause,
                       .barrier = cta.noted,
                       .longest = until - from,
                       .waited = until - from},
                      std::max(kFewestSpans, spans_ / (cta.warps.size() + kEngines)));
}

Cycle Recorder::begin(const EngineWork& work) {
  CtaRecord& cta = *acting->record;
  const Cycle issued = acting->knows.reached.cycle;
  if (work.engine == Engine::kNone) return issued;
  const Rate& rate = model_.engines[static_cast<std::size_t>(work.engine)];
  CtaRecord::EngineRecord& engine = cta.engines[static_cast<std::size_t>(work.engine)];
  CtaRecord::EngineRecord* const other =
      work.also == nullptr ? nullptr : &work.also->engines[static_cast<std::size_t>(work.engine)];
  const Cycle begin = std::max({issued, engine.free, other == nullptr ? 0 : other->free});
  const Cycle free = begin + cycles(work.amount, rate);
  const auto occupy = [&](CtaRecord& owner, CtaRecord::EngineRecord& busy) {
    busy.free = free;
    busy.busy += free - begin;
    owner.end = std::max(owner.end, free + rate.latency);
    if (!owner.drawn || work.amount == 0) return;
    busy.operations.push_back({.issued = issued,
                               .begin = begin,
                               .free = free,
                               .end = free + rate.latency,
                               .pc = acting->pc,
                               .warp = acting->warp,
                               .amount = work.amount});
    const std::size_t most = std::max(kFewestSpans, spans_ / (owner.warps.size() + kEngines));
    if (busy.operations.size() > most) halve(busy.operations);
  };
  occupy(cta, engine);
  if (other != nullptr) occupy(*work.also, *other);
  return free + rate.latency;
}

}  // namespace gpusim
