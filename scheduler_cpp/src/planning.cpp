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
  current_->plan.clear();
  current_->rows.clear();
  current_->sampling_rows = 0;
  current_->shape = {};
  chunks_.clear();
  const bool gave_way = take_decode_pages();
  floor_.begin(
      clock_.in_flight() ? steps_[clock_.newest().number() % steps_.size()].predicted_seconds : 0);
  plan_decodes();
  floor_.limit(current_->shape);
  find_computing();
  plan_prefills();
  // Whoever just gave its pages back shall not fight for them in the same step.
  if (!gave_way) admit_waiting();
  if (current_->rows.empty() && chunks_.empty()) return false;
  for (const Chunk& chunk : chunks_) {
    Sequence& sequence = *running_in(chunk.slot);
    const bool last = sequence.launched() + chunk.tokens == sequence.request().length();
    emit_row(sequence, chunk.tokens, last ? 1 : 0);
  }
  current_->predicted_seconds = floor_.planned(current_->shape);
  launch();
  return true;
}

// Every decoding sequence whose next position opens a page takes one, oldest first; while none is
// available, the youngest running sequence gives way. True if one did.
bool Scheduler::take_decode_pages() {
  bool gave_way = false;
  able_ = running_.size();
  for (std::size_t i = 0; i < able_; ++i) {
    Sequence& sequence = *running_in(running_[i]);
    if (!decoding_in(running_[i]) || !may_decode(sequence)) continue;
    SequencePages& pages = sequence.pages();
    if (sequence.launched() < pages.columns() * config_.page_size) continue;
    while (pool_.available() == 0 && i < able_) {
      gave_way = true;
      if (!give_way()) break;
    }
    if (pool_.available() > 0 && i < able_) pages.append(pool_.take(), clock_.next());
  }
  return gave_way;
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
  Slot& state = slot(id);
  auto left = std::holds_alternative<Decoding>(state)
                  ? Lifecycle::retract(std::move(std::get<Decoding>(state)))
                  : Lifecycle::retract(std::move(std::get<Prefilling>(state)));
  state = std::monostate{};
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(at));
  places_.at(left.state.request().id).slot = kNoSlot;
  waiting_.push(std::move(left.state));
  release(std::move(left.seat), clock_.retired());
  ++totals_.retractions;
}

void Scheduler::plan_decodes() {
  for (std::size_t i = 0; i < able_; ++i) {
    if (!decoding_in(running_[i])) continue;
    Sequence& sequence = *running_in(running_[i]);
    if (may_decode(sequence)) plan_decode(sequence);
  }
}

// Drafts take what pages there are, but nobody gives way to them.
void Scheduler::plan_decode(Sequence& sequence) {
  SequencePages& pages = sequence.pages();
  const std::int32_t held = pages.columns() * config_.page_size - sequence.launched();
  if (held <= 0) return;  // it found no page
  std::int32_t drafts = 0;
  if (config_.num_speculative_tokens > 0) {
    const std::int32_t most =
        std::min(config_.num_speculative_tokens,
                 sequence.request().stop.max_length() - sequence.launched() - 2);
    const std::int32_t more = pages_for(std::max(0, 1 + most - held), config_.page_size);
    for (std::int32_t page = std::min(more, pool_.available()); page > 0; --page) {
      pages.append(pool_.take(), clock_.next());
    }
    drafts = std::min(most, pages.columns() * config_.page_size - sequence.launched() - 1);
  }
  current_->shape.add_decode(sequence.launched() + 1 + drafts);
  if (floor_.any()) heed_floor(sequence);
  emit_row(sequence, 1 + drafts, 1 + drafts);
  current_->rows.back().decodes = true;
}

void Scheduler::heed_floor(const Sequence& sequence) {
  const Request& request = sequence.request();
  if (request.length() == request.prompt_length) {
    floor_.decodes_next();
  } else {
    floor_.decodes(request.paid_until, in_flight_in(sequence.slot()));
  }
}

void Scheduler::plan_prefills() {
  for (std::size_t i = 0; i < able_; ++i) {
    if (!decoding_in(running_[i])) plan_chunk(*running_in(running_[i]));
  }
}

// Short rows come first in a plan, so a chunk no longer than a decode row is emitted at once and
// longer ones wait.
void Scheduler::plan_chunk(Sequence& sequence) {
  const std::int32_t rest = sequence.request().length() - sequence.launched();
  const std::int32_t wanted = std::min({rest, config_.chunked_prefill_size, budget_left()});
  const std::int32_t tokens =
      floor_.grant(current_->shape, sequence.launched(), wanted, config_.page_size);
  if (floor_.any()) note_held(sequence, tokens);
  if (tokens == 0) return;
  note_computing(sequence);
  SequencePages& pages = sequence.pages();
  const std::int32_t needed = pages_for(sequence.launched() + tokens, config_.page_size);
  while (pages.columns() < needed) pages.append(pool_.take(sequence.promised()), clock_.next());
  current_->shape.add_chunk(sequence.launched(), tokens);
  if (tokens <= 1 + config_.num_speculative_tokens) {
    emit_row(sequence, tokens, tokens == rest ? 1 : 0);
  } else {
    chunks_.push_back({sequence.slot(), tokens});
    current_->plan.num_tokens += tokens;
  }
}

// Of the tokens that the sequence would get in this step without a floor, it gets `tokens`.
void Scheduler::note_held(Sequence& sequence, std::int32_t tokens) {
  Request& request = sequence.request();
  const std::int32_t wanted =
      std::min({request.length() - sequence.launched(), config_.chunked_prefill_size,
                budget_left() - floor_.held_in_step()});
  if (wanted <= tokens) return;
  const std::int32_t end = sequence.launched() + wanted;
  const std::int32_t begin = std::max(sequence.launched() + tokens, request.held_until);
  floor_.hold(wanted - tokens, std::max(0, end - begin));
  request.held_until = std::max(request.held_until, end);
}

// What steps in flight compute is there to be matched soon, so it is better waited for.
void Scheduler::find_computing() {
  computing_.clear();
  if (!clock_.in_flight()) return;
  for (const SlotId id : running_) {
    if (in_flight_in(id)) note_computing(*running_in(id));
  }
}

// The content of the sequence's first page that is not cached yet, if it is known.
void Scheduler::note_computing(const Sequence& sequence) {
  const SequencePages& pages = sequence.pages();
  const std::int32_t column = pages.shared();
  if (waiting_.size() == 0 || !pages.cacheable()) return;
  if (sequence.request().length() < (column + 1) * config_.page_size) return;
  const SharedPage* parent = pages.last_shared();
  computing_.push_back(cache_.chained_hash(sequence.request().salt,
                                           parent == nullptr ? kNoPage : parent->id(),
                                           page_tokens(sequence.request(), column)));
}

void Scheduler::emit_row(Sequence& sequence, std::int32_t tokens, std::int32_t samples) {
  Plan& plan = current_->plan;
  plan.row_slot.push(sequence.slot());
  plan.row_start.push(sequence.launched());
  plan.row_tokens.push(tokens);
  plan.row_samples.push(static_cast<std::uint8_t>(samples));
  if (tokens <= 1 + config_.num_speculative_tokens) {  // longer chunks were counted already
    ++plan.num_decode_rows;
    plan.num_tokens += tokens;
  }
  current_->rows.push_back({sequence.slot(), tokens, samples});
  current_->sampling_rows += samples > 0 ? 1 : 0;
  SequencePages& pages = sequence.pages();
  pages.written_from(sequence.launched_at_least() / config_.page_size, clock_.next());
  if (pages.sent() < pages.columns()) emit_page_patches(sequence);
}

void Scheduler::emit_page_patches(Sequence& sequence) {
  SequencePages& pages = sequence.pages();
  for (std::int32_t column = pages.sent(); column < pages.columns(); ++column) {
    current_->plan.page_patch.push({sequence.slot(), column, pages.page(column)});
  }
  pages.send_up_to(pages.columns());
}

void Scheduler::launch() {
  const StepId step = clock_.launch();
  current_->plan.step = step.number();
  for (const Row& row : current_->rows) {
    Slot& state = slot(row.slot);
    Sequence& sequence = *running_in(row.slot);
    sequence.launch(row.tokens, std::max(0, row.samples - 1));
    const bool prefilled = sequence.launched() >= sequence.request().length();
    if (auto* decoding = std::get_if<Decoding>(&state)) {
      state = InFlight<Decoding>(std::move(*decoding), step);
    } else if (auto* prefilling = std::get_if<Prefilling>(&state)) {
      if (prefilled) {
        state = InFlight<Decoding>(Lifecycle::decode(std::move(*prefilling)), step);
      } else {
        state = InFlight<Prefilling>(std::move(*prefilling), step);
      }
    } else if (auto* again = std::get_if<InFlight<Decoding>>(&state)) {
      again->named_by(step);
    } else {
      auto& chunked = std::get<InFlight<Prefilling>>(state);
      chunked.named_by(step);
      if (prefilled) state = Lifecycle::decode(std::move(chunked));
    }
  }
}

}  // namespace ts
