// SPDX-License-Identifier: MIT
// plan(): decodes first, then the prefills under way, then admissions, all under one token budget.
#include <stdexcept>

#include "ts/scheduler.h"

namespace ts {

bool Scheduler::plan() {
  if (clock_.in_flight()) {
    throw std::runtime_error("step " + std::to_string(clock_.oldest_in_flight().number()) +
                             " is in flight; commit it before planning the next");
  }
  plan_.clear();
  rows_.clear();
  chunks_.clear();
  computing_.clear();
  sampling_rows_ = 0;
  const bool retracted = take_decode_pages();
  plan_decodes();
  plan_prefills();
  // Whoever just gave its pages back shall not fight for them in the same step.
  if (!retracted) admit_waiting();
  if (rows_.empty() && chunks_.empty()) return false;
  for (const Chunk& chunk : chunks_) {
    auto& state = std::get<Prefilling>(slot(chunk.slot));
    emit_row(chunk.slot, state.seat(), state.computed(), chunk.tokens,
             state.computed() + chunk.tokens == state.request().length());
  }
  const StepId step = clock_.launch();
  plan_.step = step.number();
  launch(step);
  return true;
}

// Every decoding sequence whose next position opens a page takes one, oldest first; while none is
// available, the youngest running sequence gives its pages back.
bool Scheduler::take_decode_pages() {
  bool retracted = false;
  for (std::size_t i = 0; i < running_.size(); ++i) {
    const SlotId id = running_[i];
    auto* decoding = std::get_if<Decoding>(&slot(id));
    if (decoding == nullptr) continue;
    SequencePages& pages = decoding->seat().pages;
    if (decoding->computed() < pages.columns() * config_.page_size) continue;
    while (pool_.available() == 0 && i < running_.size()) {
      retract(running_.back());
      retracted = true;
    }
    if (i < running_.size()) pages.tail.push_back(pool_.take());
  }
  return retracted;
}

void Scheduler::retract(SlotId id) {
  Slot& state = slot(id);
  auto left = std::holds_alternative<Decoding>(state)
                  ? Lifecycle::retract(std::move(std::get<Decoding>(state)))
                  : Lifecycle::retract(std::move(std::get<Prefilling>(state)));
  state = std::monostate{};
  running_.pop_back();
  places_.at(left.state.request().id).slot = kNoSlot;
  waiting_.push(std::move(left.state));
  release(std::move(left.seat), std::move(left.promised));
  ++totals_.retractions;
}

void Scheduler::plan_decodes() {
  for (const SlotId id : running_) {
    auto* decoding = std::get_if<Decoding>(&slot(id));
    if (decoding == nullptr) continue;
    emit_row(id, decoding->seat(), decoding->computed(), 1, true);
  }
}

void Scheduler::plan_prefills() {
  for (const SlotId id : running_) {
    if (auto* prefilling = std::get_if<Prefilling>(&slot(id))) plan_chunk(id, *prefilling);
  }
}

// Rows of one token come first in a plan, so a chunk of one is emitted at once and longer ones
// wait.
void Scheduler::plan_chunk(SlotId id, Prefilling& state) {
  const std::int32_t rest = state.request().length() - state.computed();
  const std::int32_t tokens = std::min({rest, config_.chunked_prefill_size, budget_left()});
  if (tokens == 0) return;
  SequencePages& pages = state.seat().pages;
  const std::int32_t needed = pages_for(state.computed() + tokens, config_.page_size);
  while (pages.columns() < needed) pages.tail.push_back(pool_.take(state.promised()));
  if (const std::int32_t column = state.computed() / config_.page_size;
      pages.cacheable && state.request().length() >= (column + 1) * config_.page_size) {
    computing_.push_back(cache_.chained_hash(state.request().salt,
                                             column == 0 ? kNoPage : pages.prefix.back().id(),
                                             page_tokens(state.request(), column)));
  }
  if (tokens == 1) {
    emit_row(id, state.seat(), state.computed(), 1, rest == 1);
  } else {
    chunks_.push_back({id, tokens});
    plan_.num_tokens += tokens;
  }
}

void Scheduler::emit_row(SlotId id, Seat& seat, std::int32_t start, std::int32_t tokens,
                         bool samples) {
  plan_.row_slot.push(id);
  plan_.row_start.push(start);
  plan_.row_tokens.push(tokens);
  plan_.row_samples.push(samples ? 1 : 0);
  if (tokens == 1) {  // longer chunks were counted when they were sized
    ++plan_.num_decode_rows;
    ++plan_.num_tokens;
  }
  rows_.push_back({id, tokens, samples});
  sampling_rows_ += samples ? 1 : 0;
  if (seat.pages.sent < seat.pages.columns()) emit_page_patches(seat);
}

void Scheduler::emit_page_patches(Seat& seat) {
  SequencePages& pages = seat.pages;
  const SlotId id = seat.slot.id();
  const auto shared = static_cast<std::int32_t>(pages.prefix.size());
  std::int32_t column = pages.sent;
  for (; column < shared; ++column) {
    plan_.page_patch.push({id, column, pages.prefix[static_cast<std::size_t>(column)].id()});
  }
  for (; column < pages.columns(); ++column) {
    const PageLease& lease = pages.tail[static_cast<std::size_t>(column - shared)];
    plan_.page_patch.push({id, column, write_target(lease)});
  }
  pages.sent = column;
}

void Scheduler::launch(StepId step) {
  for (const Row& row : rows_) {
    Slot& state = slot(row.slot);
    if (auto* decoding = std::get_if<Decoding>(&state)) {
      state = InFlight<Decoding>(std::move(*decoding), step);
    } else {
      state = InFlight<Prefilling>(std::move(std::get<Prefilling>(state)), step);
    }
  }
}

}  // namespace ts
