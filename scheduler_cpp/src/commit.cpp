// SPDX-License-Identifier: MIT
// commit(): a step has retired; its rows advance, full pages enter the cache, requests end.
#include <algorithm>
#include <stdexcept>

#include "ts/scheduler.h"

namespace ts {

void Scheduler::commit(std::uint64_t step, std::span<const Token> sampled) {
  check_commit(step, sampled);
  const StepToken token = clock_.retire(StepId(step));
  output_.clear();
  std::int32_t sample = 0;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    prefetch_row(i);
    commit_row(rows_[i], token, sampled, sample);
  }
  rows_.clear();
  ++totals_.steps;
}

void Scheduler::check_commit(std::uint64_t step, std::span<const Token> sampled) const {
  if (!clock_.in_flight()) {
    throw std::runtime_error("no step is in flight; plan one before committing");
  }
  if (step != clock_.oldest_in_flight().number()) {
    throw std::invalid_argument("step is " + std::to_string(step) + ", but the step in flight is " +
                                std::to_string(clock_.oldest_in_flight().number()));
  }
  if (sampled.size() != static_cast<std::size_t>(sampling_rows_)) {
    throw std::invalid_argument("token_ids has " + std::to_string(sampled.size()) +
                                " entries, but the step has " + std::to_string(sampling_rows_) +
                                " sampling rows");
  }
  const auto bad = std::ranges::find_if(
      sampled, [this](Token token) { return token < 0 || token >= config_.vocab_size; });
  if (bad != sampled.end()) {
    throw std::invalid_argument("token_ids[" + std::to_string(bad - sampled.begin()) + "] is " +
                                std::to_string(*bad) + ", but token ids are 0 to " +
                                std::to_string(config_.vocab_size - 1));
  }
}

// The forward pass between two steps empties the caches of the CPU, so the rows' requests are
// fetched ahead: the slot, then what it points to, then where the next token goes.
void Scheduler::prefetch_row(std::size_t at) {
  constexpr std::size_t kStride = 3;
  const auto decoding = [&](std::size_t row) -> const Decoding* {
    if (row >= rows_.size()) return nullptr;
    const auto* flying = std::get_if<InFlight<Decoding>>(&slot(rows_[row].slot));
    return flying == nullptr ? nullptr : &flying->peek();
  };
  if (at + (3 * kStride) < rows_.size()) {
    const auto* next = reinterpret_cast<const char*>(&slot(rows_[at + (3 * kStride)].slot));
    __builtin_prefetch(next, 1);
    __builtin_prefetch(next + 64, 1);
  }
  if (const Decoding* next = decoding(at + (2 * kStride))) {
    const auto* request = reinterpret_cast<const char*>(&next->request());
    __builtin_prefetch(request, 1);
    __builtin_prefetch(request + 64, 1);
  }
  if (const Decoding* next = decoding(at + kStride)) {
    const std::vector<Token>& tokens = next->request().tokens;
    __builtin_prefetch(tokens.data() + tokens.size(), 1);
  }
}

// `sample` counts the step's sampling rows, those of aborted requests included.
void Scheduler::commit_row(const Row& row, const StepToken& token, std::span<const Token> sampled,
                           std::int32_t& sample) {
  Slot& state = slot(row.slot);
  const std::int32_t index = row.samples ? sample++ : 0;
  if (auto* decoding = std::get_if<InFlight<Decoding>>(&state)) {
    Decoding advanced = std::move(*decoding).retire(token);
    advanced.advance();
    commit_sample(std::move(advanced), sampled[static_cast<std::size_t>(index)], index);
  } else if (auto* draining = std::get_if<InFlight<Draining>>(&state)) {
    auto left = Lifecycle::drain(std::move(*draining).retire(token));
    state = std::monostate{};
    release(std::move(left.seat), std::move(left.promised));
  } else {
    Prefilling prefilling = std::get<InFlight<Prefilling>>(std::move(state)).retire(token);
    prefilling.advance(row.tokens);
    if (row.samples) {
      commit_sample(Lifecycle::decode(std::move(prefilling)),
                    sampled[static_cast<std::size_t>(index)], index);
    } else {
      cache_full_pages(prefilling.request(), prefilling.seat().pages, prefilling.computed());
      state = std::move(prefilling);
    }
  }
}

void Scheduler::commit_sample(Decoding&& decoding, Token token, std::int32_t sample) {
  Request& request = decoding.request();
  SequencePages& pages = decoding.seat().pages;
  const auto cached = static_cast<std::int32_t>(pages.prefix.size());
  if (decoding.computed() >= (cached + 1) * config_.page_size) {
    cache_full_pages(request, pages, decoding.computed());
  }
  request.tokens.push_back(token);
  const FinishReason finish = request.stop.after(token, request.length());
  output_.request.push(request.id);
  output_.token.push(token);
  output_.row.push(sample);
  output_.finish.push(static_cast<std::uint8_t>(finish));
  output_.cached_tokens.push(request.cached_tokens);
  const SlotId id = decoding.seat().slot.id();
  if (finish == FinishReason::kNone) {
    slot(id) = std::move(decoding);
    return;
  }
  places_.erase(request.id);
  std::erase(running_, id);
  auto left = Lifecycle::finish(std::move(decoding));
  release(std::move(left.seat), std::move(left.promised));
  slot(id) = std::monostate{};
}

// Moves the written pages that are full from the tail into the cache. If the content was cached
// meanwhile by another sequence, that page takes this one's column.
void Scheduler::cache_full_pages(const Request& request, SequencePages& pages,
                                 std::int32_t computed) {
  if (!pages.cacheable) return;
  const auto full = static_cast<std::size_t>(computed / config_.page_size);
  std::size_t moved = 0;
  while (pages.prefix.size() < full) {
    const std::size_t column = pages.prefix.size();
    auto inserted = cache_.insert(request.salt, column == 0 ? nullptr : &pages.prefix.back(),
                                  page_tokens(request, static_cast<std::int32_t>(column)),
                                  std::move(pages.tail[moved]));
    if (inserted.unused && !inserted.page) {
      pages.tail[moved] = std::move(*inserted.unused);
      pages.cacheable = false;
      break;
    }
    if (inserted.unused) {
      pool_.give_back(std::move(*inserted.unused));
      pages.sent = std::min(pages.sent, static_cast<std::int32_t>(column));
    }
    if (inserted.page) pages.prefix.push_back(std::move(*inserted.page));
    ++moved;
  }
  pages.tail.erase(pages.tail.begin(), pages.tail.begin() + static_cast<std::ptrdiff_t>(moved));
}

}  // namespace ts
