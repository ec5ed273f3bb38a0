// SPDX-License-Identifier: MIT
// commit(): a step has retired; its rows advance, full pages enter the cache, requests end.
#include <algorithm>
#include <stdexcept>

#include "ts/scheduler.h"

namespace ts {
namespace {

constexpr double kLongestStep = 1e6;  // seconds

}  // namespace

void Scheduler::commit(std::uint64_t step, std::span<const Token> sampled,
                       std::span<const std::int32_t> counts, double seconds) {
  check_commit(step, sampled, counts, seconds);
  const StepToken token = clock_.retire(StepId(step));
  const PlannedStep& retired = steps_[step % steps_.size()];
  floor_.lasted(retired.shape, seconds);
  output_.clear();
  std::size_t begin = 0;
  std::int32_t sampling_row = 0;
  std::int64_t decoded = 0;
  for (std::size_t i = 0; i < retired.rows.size(); ++i) {
    prefetch_row(retired.rows, i);
    const PlannedStep::Row& row = retired.rows[i];
    std::size_t count = 0;
    if (row.samples > 0) {
      const auto at = static_cast<std::size_t>(sampling_row);
      count = counts.empty() ? 1 : static_cast<std::size_t>(counts[at]);
    }
    commit_row(row, token, sampled.subspan(begin, count), sampling_row);
    begin += count;
    sampling_row += row.samples > 0 ? 1 : 0;
    if (row.decodes) decoded += static_cast<std::int64_t>(count);
  }
  free_replaced(token);
  floor_.yielded(decoded, retired.shape.decode_rows);
  ++totals_.steps;
}

void Scheduler::check_commit(std::uint64_t step, std::span<const Token> sampled,
                             std::span<const std::int32_t> counts, double seconds) const {
  if (!clock_.in_flight()) {
    throw std::runtime_error("no step is in flight; plan one before committing");
  }
  if (step != clock_.oldest_in_flight().number()) {
    throw std::invalid_argument("step is " + std::to_string(step) +
                                ", but the oldest in flight is " +
                                std::to_string(clock_.oldest_in_flight().number()));
  }
  steps_[step % steps_.size()].check_yield(sampled, counts, config_.vocab_size);
  if (!(seconds >= 0) || seconds > kLongestStep) {
    throw std::invalid_argument(
        "seconds is " + std::to_string(seconds) + "; it must be the step's duration, up to " +
        std::to_string(static_cast<std::int64_t>(kLongestStep)) + ", or 0 if that is unknown");
  }
}

// The forward pass between two steps empties the caches of the CPU, so the rows' requests are
// fetched ahead: the slot, then what it points to, then where the next token goes.
void Scheduler::prefetch_row(const std::vector<PlannedStep::Row>& rows, std::size_t at) {
  constexpr std::size_t kStride = 3;
  const auto decoding = [&](std::size_t row) -> const Decoding* {
    if (row >= rows.size()) return nullptr;
    const auto* flying = std::get_if<InFlight<Decoding>>(&slot(rows[row].slot));
    return flying == nullptr ? nullptr : &flying->peek();
  };
  if (at + (3 * kStride) < rows.size()) {
    const auto* next = reinterpret_cast<const char*>(&slot(rows[at + (3 * kStride)].slot));
    for (std::size_t line = 0; line < sizeof(Slot); line += 64) __builtin_prefetch(next + line, 1);
  }
  if (const Decoding* next = decoding(at + (2 * kStride))) {
    const auto* request = reinterpret_cast<const char*>(&next->request());
    __builtin_prefetch(request, 1);
    __builtin_prefetch(request + 64, 1);
    __builtin_prefetch(&next->holdings(), 1);
  }
  if (const Decoding* next = decoding(at + kStride)) {
    const std::vector<Token>& tokens = next->request().tokens;
    __builtin_prefetch(tokens.data() + tokens.size(), 1);
  }
}

// `sampled`: the row's tokens. Those behind a stop or a missing one are discarded, and so are all
// of a request that was ended while the step was in flight.
void Scheduler::commit_row(const PlannedStep::Row& row, const StepToken& token,
                           std::span<const Token> sampled, std::int32_t sampling_row) {
  Sequence* const sequence = running_in(row.slot);
  if (sequence == nullptr) return drain(row.slot, token);
  Request& request = sequence->request();
  const bool first = request.length() == request.prompt_length();
  if (row.samples > 0 && first) request.first_token_at = request.paid_until = floor_.now();
  FinishReason finish_reason = FinishReason::kNone;
  std::int32_t kept = 0;
  for (const Token next : sampled) {
    if (next == kNoToken) {
      finish_reason = FinishReason::kFailed;
    } else {
      request.tokens.push_back(next);
      finish_reason = request.stop.after(next, request.length());
      ++kept;
    }
    output_.request.push(request.id);
    output_.token.push(next);
    output_.row.push(sampling_row);
    output_.finish.push(static_cast<std::uint8_t>(finish_reason));
    output_.cached_tokens.push(request.cached_tokens);
    if (finish_reason != FinishReason::kNone) break;
  }
  if (finish_reason == FinishReason::kFailed) {
    withdraw_unproven_pages(*sequence);
    return finish(row.slot, token, finish_reason);
  }
  if (!first && floor_.any()) request.paid_until = floor_.pay(request.paid_until, kept);
  const std::int32_t drafts = std::max(0, row.samples - 1);
  sequence->commit(row.tokens, drafts, row.samples - kept);
  const std::int32_t next_full = (sequence->pages().shared() + 1) * config_.page_size;
  const bool fills_pages = sequence->computed() >= next_full;
  if (fills_pages) cache_full_pages(*sequence, token);
  if (row.samples > 0 && (first || fills_pages)) prove_pages(*sequence, token.step());
  if (!sequence->groups().empty()) groups_.give_up_old(*sequence, token);
  if (finish_reason != FinishReason::kNone) finish(row.slot, token, finish_reason);
}

void Scheduler::finish(SlotId id, const StepToken& token, FinishReason reason) {
  Slot& state = slot(id);
  auto& decoding = std::get<InFlight<Decoding>>(state);
  const Request& request = decoding.peek().request();
  floor_.finished(request.length() - request.prompt_length(), request.first_token_at);
  places_.erase(request.id);
  std::erase(running_, id);
  if (!decoding.landed(token)) {  // the next step runs already: its token will be discarded
    state = Lifecycle::finish(std::move(decoding));
    ++draining_;
    return;
  }
  if (request.role == Role::kPrefill && reason != FinishReason::kFailed) return send(id, token);
  auto left = Lifecycle::finish(std::move(decoding).retire(token));
  state = std::monostate{};
  release(std::move(left.seat), token);
}

// What was asked for here is done; the next plan has its pages sent.
void Scheduler::send(SlotId id, const StepToken& token) {
  Slot& state = slot(id);
  auto& decoding = std::get<InFlight<Decoding>>(state);
  Send send{decoding.peek().request().id, id, {}};
  const SequencePages& pages = decoding.peek().pages();
  for (std::int32_t column = 0; column < pages.columns(); ++column) {
    send.device_pages.push_back(pages.page(column));
  }
  const TransferId transfer = transfers_.begin(std::move(send));
  state = InFlight<Sending, TransferToken>(Lifecycle::send(std::move(decoding).retire(token)),
                                           transfer);
}

void Scheduler::drain(SlotId id, const StepToken& token) {
  Slot& state = slot(id);
  auto& draining = std::get<InFlight<Draining>>(state);
  if (!draining.landed(token)) return;
  auto left = Lifecycle::drain(std::move(draining).retire(token));
  state = std::monostate{};
  --draining_;
  release(std::move(left.seat), token);
}

void Scheduler::free_replaced(const StepToken& token) {
  while (!replaced_.empty() && replaced_.front().landed(token)) {
    pool_.give_back(std::move(replaced_.front()).retire(token));
    replaced_.pop_front();
  }
}

// Moves the written pages that are full from the tail into the cache. If the content was cached
// meanwhile by another sequence, that page takes this one's column.
void Scheduler::cache_full_pages(Sequence& sequence, const StepToken& token) {
  SequencePages& pages = sequence.pages();
  if (!pages.cacheable()) return;
  Request& request = sequence.request();
  const std::int32_t full = sequence.computed() / config_.page_size;
  const auto names = admission_.name_pages(request).first(static_cast<std::size_t>(full));
  cache_.prefetch(names.subspan(static_cast<std::size_t>(pages.shared())));
  while (pages.shared() < full && pages.landed(token)) {
    const std::int32_t column = pages.shared();
    const ContentHash hash = names[static_cast<std::size_t>(column)];
    const std::int32_t expanded = sequence.expanded_in(column, config_.page_size);
    // A page that takes this one's place is one less to hand out, and this one comes back only when
    // no step reads it any more: until then there must be one to spare. A later commit caches it.
    if (clock_.in_flight() && pool_.available() == 0 &&
        cache_.takes_unreferenced(hash, request.salt, pages.last_shared(),
                                  page_tokens(request, column), expanded)) {
      break;
    }
    auto inserted = cache_.insert(hash, request.salt, pages.last_shared(),
                                  page_tokens(request, column), expanded, pages.land(token));
    if (!inserted.page) {
      if (inserted.unused) pages.keep(std::move(*inserted.unused), token.step());
      pages.never_cache();
      break;
    }
    if (inserted.unused) {
      // A step in flight still reads it in this sequence's place.
      replaced_.emplace_back(std::move(*inserted.unused), clock_.newest());
      pages.resend_from(column, clock_.next());
    }
    pages.share(std::move(*inserted.page));
    groups_.attach(sequence, column, token);
  }
  pages.compact();
}

}  // namespace ts
