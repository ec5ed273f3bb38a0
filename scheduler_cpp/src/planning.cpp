// SPDX-License-Identifier: MIT
// plan(): decodes first, then the prefills under way, then admissions, all under one token budget.
#include <algorithm>
#include <stdexcept>

#include "ts/scheduler.h"

namespace ts {

bool Scheduler::plan() {
  if (clock_.steps_in_flight() > static_cast<std::uint64_t>(config_.overlap_depth)) {
    throw std::runtime_error("step " + std::to_string(clock_.oldest_in_flight().number()) +
                             " is in flight; commit it before planning the next");
  }
  current_ = &steps_[clock_.next().number() % steps_.size()];
  current_->clear();
  current_->shape = {.beside_transfers = transfers_.beside_steps()};
  chunks_.clear();
  floor_.begin(
      clock_.in_flight() ? steps_[clock_.newest().number() % steps_.size()].predicted_seconds : 0);
  admission_.begin();
  find_computing();
  const Decodes decodes = plan_decodes();
  floor_.limit(current_->shape);
  if (decodes.others) plan_prefills();
  // Whoever just gave its pages back shall not fight for them in the same step.
  if (!decodes.gave_way) admit_waiting();
  transfers_.emit(cache_.host().take_write_backs(), cache_.host(), current_->plan);
  current_->shape.beside_transfers = transfers_.beside_steps();
  const Plan& plan = current_->plan;
  if (current_->rows.empty() && chunks_.empty() && plan.admitted_slot.size() == 0 &&
      plan.transfer_id.size() == 0) {
    return false;
  }
  for (const Chunk& chunk : chunks_) launch_chunk(chunk);
  current_->predicted_seconds = floor_.planned(current_->shape);
  current_->plan.step = clock_.launch().number();
  return true;
}

// Oldest first, every sequence takes the pages without which it could not compute its next token;
// while there is none, the youngest gives way. Who decodes gets its row.
Scheduler::Decodes Scheduler::plan_decodes() {
  Decodes decodes{.others = false, .gave_way = false};
  able_ = running_.size();
  shortage_ = false;
  for (std::size_t i = 0; i < able_; ++i) {
    InFlight<Decoding>* const decoding = decoding_in(running_[i]);
    decodes.others |= decoding == nullptr;
    if (lacking(running_[i]) != nullptr && !take_pages_to_go_on(i, decodes.gave_way)) continue;
    if (decoding != nullptr && may_decode(decoding->peek())) {
      plan_decode(*decoding, static_cast<std::int32_t>(able_ - i) - 1);
    }
  }
  return decodes;
}

// False if the sequence at `at` is not able to go on in this step. `gave_way`: somebody did.
bool Scheduler::take_pages_to_go_on(std::size_t at, bool& gave_way) {
  while (PagePool* pool = lacking(running_[at])) {
    while (pool->available() == 0) {
      gave_way = true;
      if (!give_way()) break;
      if (at == able_) return false;
    }
    if (at >= able_) return false;
    if (pool->available() == 0) {
      shortage_ = true;
      return false;
    }
    if (pool == &pool_) {
      running_in(running_[at])->pages().append(pool->take());
    } else {
      groups_.give_spare(*pool, *running_in(running_[at]));
    }
  }
  return true;
}

// The youngest sequence gives its pages back. If a step in flight names it, or others' pages are
// on their way back already, there is nothing to be had in this step: false.
bool Scheduler::give_way() {
  if (draining_ > 0) return false;
  --able_;
  if (in_flight_in(running_[able_])) return false;
  retract(able_);
  return true;
}

void Scheduler::retract(std::size_t at) {
  const SlotId id = running_[at];
  const StepToken token = clock_.retired();
  auto* const decoding = decoding_in(id);
  auto left = decoding != nullptr ? Lifecycle::retract(std::move(*decoding).retire(token))
                                  : Lifecycle::retract(std::move(*prefilling_in(id)).retire(token));
  slot(id) = std::monostate{};
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(at));
  places_.at(left.state.request().id).slot = kNoSlot;
  waiting_.push(std::move(left.state));
  release(std::move(left.seat), token);
  ++totals_.retractions;
}

// Drafts take what pages there are, but one is left to each of the `younger`: nobody gives way to
// them.
void Scheduler::plan_decode(InFlight<Decoding>& decoding, std::int32_t younger) {
  Sequence& sequence = decoding.while_in_flight();
  const std::int32_t drafts =
      config_.num_speculative_tokens == 0 ? 0 : room_for_drafts(sequence, younger);
  current_->shape.add_decode(sequence.launched() + 1 + drafts);
  if (floor_.any()) heed_floor(sequence);
  if (!sequence.groups().empty()) {
    groups_.open(sequence, 1 + drafts, clock_.next(), current_->plan);
  }
  current_->plan.num_tokens += 1 + drafts;
  current_->add_row(sequence, 1 + drafts, 1 + drafts, config_.page_size, clock_.next());
  current_->rows.back().decodes = true;
  decoding.named_by(clock_.next());
}

std::int32_t Scheduler::room_for_drafts(Sequence& sequence, std::int32_t younger) {
  SequencePages& pages = sequence.pages();
  const std::int32_t held = pages.columns() * config_.page_size - sequence.launched();
  const std::int32_t most =
      std::min(config_.num_speculative_tokens,
               sequence.request().stop.max_length() - sequence.launched() - 2);
  const std::int32_t more = pages_for(std::max(0, 1 + most - held), config_.page_size);
  for (std::int32_t page = std::min(more, pool_.available() - younger); page > 0; --page) {
    pages.append(pool_.take());
  }
  return std::min({most, pages.columns() * config_.page_size - sequence.launched() - 1,
                   groups_.room(sequence, younger) - 1});
}

void Scheduler::heed_floor(const Sequence& sequence) {
  const Request& request = sequence.request();
  if (request.length() == request.prompt_length()) {
    floor_.decodes_next();
  } else {
    floor_.decodes(request.paid_until, in_flight_in(sequence.slot()));
  }
}

void Scheduler::plan_prefills() {
  for (std::size_t i = 0; i < able_; ++i) {
    InFlight<Prefilling>* const prefilling = prefilling_in(running_[i]);
    if (prefilling != nullptr && can_go_on(running_[i])) plan_chunk(prefilling->while_in_flight());
  }
}

// A chunk has one form. Absorbed rows come first in a plan, so an absorbed chunk is launched at
// once and expanded ones wait.
void Scheduler::plan_chunk(Sequence& sequence) {
  const std::int32_t wanted = std::min(longest_chunk(sequence), budget_left());
  std::int32_t tokens =
      floor_.grant(current_->shape, sequence.launched(), wanted, config_.page_size);
  tokens =
      end_at_snapshot(sequence, std::min(tokens, groups_.room(sequence, 0)), config_.page_size);
  if (floor_.any()) note_held(sequence, tokens);
  if (tokens == 0) return;
  admission_.note_computing(sequence);
  SequencePages& pages = sequence.pages();
  if (!sequence.groups().empty()) groups_.open(sequence, tokens, clock_.next(), current_->plan);
  const std::int32_t needed = pages_for(sequence.launched() + tokens, config_.page_size);
  while (pages.columns() < needed) pages.append(pool_.take(sequence.promised()));
  current_->shape.add_chunk(sequence.launched(), tokens);
  const Chunk chunk{sequence.slot(), tokens};
  current_->plan.num_tokens += tokens;
  if (sequence.absorbs()) {
    launch_chunk(chunk);
  } else {
    chunks_.push_back(chunk);
  }
}

// Tokens that the sequence would compute in one row if nothing else were planned.
std::int32_t Scheduler::longest_chunk(const Sequence& sequence) const {
  const Request& request = sequence.request();
  const std::int32_t end = sequence.absorbs() ? request.length() : request.forms.expanded_length;
  return std::min(end - sequence.launched(), config_.chunked_prefill_size);
}

// Of the tokens that the sequence would get in this step without a floor, it gets `tokens`.
void Scheduler::note_held(Sequence& sequence, std::int32_t tokens) {
  Request& request = sequence.request();
  const std::int32_t wanted =
      std::min(longest_chunk(sequence), budget_left() - floor_.held_in_step());
  if (wanted <= tokens) return;
  const std::int32_t end = sequence.launched() + wanted;
  const std::int32_t begin = std::max(sequence.launched() + tokens, request.held_until);
  floor_.hold(wanted - tokens, std::max(0, end - begin));
  request.held_until = std::max(request.held_until, end);
}

// What steps in flight compute and transfers load is there to be matched soon, so it is better
// waited for.
void Scheduler::find_computing() {
  if (waiting_.size() == 0 || (!clock_.in_flight() && transfers_.under_way().empty())) return;
  for (const SlotId id : running_) {
    if (!in_flight_in(id)) continue;
    if (Sequence* const sequence = running_in(id)) admission_.name_pages(sequence->request());
    admission_.note_computing(*sequence_in(id));
  }
}

void Scheduler::launch_chunk(const Chunk& chunk) {
  Slot& state = slot(chunk.slot);
  auto& prefilling = std::get<InFlight<Prefilling>>(state);
  Sequence& sequence = prefilling.while_in_flight();
  const bool last = sequence.launched() + chunk.tokens == sequence.request().length();
  current_->add_row(sequence, chunk.tokens, last ? 1 : 0, config_.page_size, clock_.next());
  prefilling.named_by(clock_.next());
  if (last) state = Lifecycle::decode(std::move(prefilling));
}

}  // namespace ts
