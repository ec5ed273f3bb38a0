// SPDX-License-Identifier: MIT
#include "happens_before.h"

#include <cstring>
#include <new>
#include <type_traits>

#include "memory.h"
#include "program.h"

namespace gpusim {

constinit thread_local Agent* acting = nullptr;
constinit thread_local Races* races = nullptr;
constinit thread_local Clock latest = 0;
constinit thread_local std::uint64_t lessons = 0;

namespace {

constexpr std::size_t kFewAccesses = std::size_t{1} << 20;

}  // namespace

AccessHistory::AccessHistory(const char* memory, std::size_t bytes)
    : memory_(memory),
      most_accesses_(kFewAccesses),
      words_(static_cast<Word*>(std::calloc(((bytes + 3) / 4) + 1, sizeof(Word)))) {
  static_assert(std::is_trivially_copyable_v<Word> && sizeof(Word) == 16);
  if (words_ == nullptr) throw std::bad_alloc();
}

void AccessHistory::forget() {
  first_ += static_cast<std::uint32_t>(accesses_.size());
  accesses_.clear();
  most_accesses_ = kFewAccesses;
  if (first_ > kMostNumbers / 2) start_over();
}

void AccessHistory::start_over() {
  if (begin_ < end_) std::memset(&words_[begin_], 0, (end_ - begin_) * sizeof(Word));
  begin_ = ~std::uint32_t{0};
  end_ = 0;
  first_ = 1;
  outcomes_ = {};
}

std::uint32_t AccessHistory::number_of(const Agent& agent) {
  const Access now{.clock = agent.now.clock,
                   .pc = agent.pc,
                   .slot = agent.now.slot,
                   .cta = static_cast<std::uint16_t>(agent.cta),
                   .warp = static_cast<std::int16_t>(agent.warp),
                   .by_itself = agent.by_itself,
                   .strong = agent.strong,
                   .fenced = agent.proxy != Proxy::kGeneric};
  if (accesses_.empty() || accesses_.back() != now) {
    if (accesses_.size() >= most_accesses_) drop_what_no_word_names();
    accesses_.push_back(now);
  }
  return first_ + static_cast<std::uint32_t>(accesses_.size() - 1);
}

void AccessHistory::drop_what_no_word_names() {
  std::vector<std::uint32_t> numbers(accesses_.size(), 0);  // new ones; 0: not kept
  std::vector<Access> kept;
  const auto renumber = [&](Mark& mark) {
    if (forgotten(mark)) {
      mark = 0;
      return;
    }
    std::uint32_t& number = numbers[(mark >> kNumberShift) - first_];
    if (number == 0) {
      kept.push_back(access_of(mark));
      number = static_cast<std::uint32_t>(kept.size());
    }
    mark = number << kNumberShift | (mark & kAllBytes);
  };
  for (std::uint32_t at = begin_; at < end_; ++at) {
    renumber(words_[at].writer);
    for (Mark& reader : words_[at].readers) renumber(reader);
  }
  accesses_ = std::move(kept);
  first_ = 1;
  outcomes_ = {};
  most_accesses_ = std::max(kFewAccesses, 2 * accesses_.size());
  if (most_accesses_ >= kMostNumbers) throw std::bad_alloc();
}

bool AccessHistory::compare(Mark earlier, Mark now, bool earlier_wrote, bool writes,
                            std::uint32_t word) const {
  if (forgotten(earlier) || (earlier & now & kAllBytes) == 0) return false;
  const Access& before = access_of(earlier);
  const Access& access = access_of(now);
  const Knowledge& knows = acting->knows;
  const bool ordered = knows.all.covers(before.epoch());
  // What was written through the generic proxy must be fenced before another proxy meets it.
  const bool across = earlier_wrote && !before.fenced && access.fenced;
  if (before.strong && access.strong) return false;
  if (ordered && (!across || knows.fenced.covers(before.epoch()))) return false;
  races->add({.memory = memory_,
              .offset = std::uint64_t{4} * word,
              .pc = access.pc,
              .cta = access.cta,
              .warp = access.warp,
              .by_itself = access.by_itself,
              .earlier_pc = before.pc,
              .earlier_cta = before.cta,
              .earlier_warp = before.warp,
              .earlier_by_itself = before.by_itself,
              .earlier_wrote = earlier_wrote,
              .writes = writes,
              .unfenced = ordered});
  return true;
}

// In the place of an earlier one of the same moment, an access has the bytes of both.
AccessHistory::Mark AccessHistory::with_bytes_before(Mark earlier, Mark now) const {
  if (forgotten(earlier) || !access_of(earlier).same_moment(access_of(now))) return now;
  return now | (earlier & kAllBytes);
}

bool AccessHistory::update_read(Word& word, Mark mark, std::uint32_t at) const {
  const bool race = compare(word.writer, mark, true, false, at);
  // In the place of an access of the same agent, of one that happens before, or of any.
  Mark* place = &word.readers[0];
  for (Mark& reader : word.readers) {
    if (forgotten(reader) || access_of(reader).slot == access_of(mark).slot) {
      place = &reader;
      break;
    }
    if (acting->knows.all.covers(access_of(reader).epoch())) place = &reader;
  }
  *place = with_bytes_before(*place, mark);
  return race;
}

bool AccessHistory::update_written(Word& word, Mark mark, std::uint32_t at) const {
  bool race = compare(word.writer, mark, true, true, at);
  for (Mark& reader : word.readers) {
    race |= compare(reader, mark, false, true, at);
    reader = 0;
  }
  word.writer = with_bytes_before(word.writer, mark);
  return race;
}

// Words that were accessed alike become alike: what becomes of them is found once.
template <bool kWrites>
void AccessHistory::touch(std::uint32_t first, std::uint32_t last, Mark mark) {
  const auto same = [](const Word& a, const Word& b) {
    return std::memcmp(&a, &b, sizeof(Word)) == 0;
  };
  for (std::uint32_t at = first; at < last;) {
    Word& word = words_[at];
    const std::uint32_t hash = (word.writer ^ word.readers[0] ^ word.readers[1]) >> kNumberShift;
    Outcome& outcome = outcomes_[hash % outcomes_.size()];
    if (outcome.mark == mark && outcome.wrote == kWrites && outcome.lessons == lessons &&
        same(outcome.before, word)) {
      const Word before = outcome.before;
      const Word after = outcome.after;
      do {
        words_[at++] = after;
      } while (at < last && same(words_[at], before));
      continue;
    }
    const Word before = word;
    const bool race = kWrites ? update_written(word, mark, at) : update_read(word, mark, at);
    if (!race) {
      outcome = {
          .before = before, .after = word, .lessons = lessons, .mark = mark, .wrote = kWrites};
    }
    ++at;
  }
}

template <bool kWrites>
void AccessHistory::access(std::uint32_t offset, std::uint32_t bytes) {
  if (acting == nullptr || bytes == 0) return;
  const Mark mark = number_of(*acting) << kNumberShift;
  const std::uint32_t end = offset + bytes;
  std::uint32_t first = offset / 4;
  std::uint32_t last = (end + 3) / 4;
  begin_ = std::min(begin_, first);
  end_ = std::max(end_, last);
  // The first and the last word may be touched in part.
  const Mark head = kAllBytes << (offset % 4) & kAllBytes;
  const Mark tail = kAllBytes >> (4 * last - end);
  if (last - first == 1) return touch<kWrites>(first, last, mark | (head & tail));
  if (head != kAllBytes) touch<kWrites>(first, first + 1, mark | head), ++first;
  if (tail == kAllBytes) return touch<kWrites>(first, last, mark | kAllBytes);
  touch<kWrites>(first, last - 1, mark | kAllBytes);
  touch<kWrites>(last - 1, last, mark | tail);
}

template void AccessHistory::access<false>(std::uint32_t offset, std::uint32_t bytes);
template void AccessHistory::access<true>(std::uint32_t offset, std::uint32_t bytes);

}  // namespace gpusim
