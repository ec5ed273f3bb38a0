// SPDX-License-Identifier: MIT
#include "happens_before.h"

#include <new>
#include <type_traits>

#include "memory.h"
#include "program.h"

namespace gpusim {

thread_local Agent* acting = nullptr;
thread_local Races* races = nullptr;
thread_local Clock latest = 0;

namespace {

// The bytes of a word that an access of [begin, end) touches.
std::uint8_t bytes_of(std::uint32_t word, std::uint32_t begin, std::uint32_t end) {
  const std::uint32_t first = std::max(begin, word * 4) - word * 4;
  const std::uint32_t last = std::min(end, word * 4 + 4) - word * 4;
  return static_cast<std::uint8_t>((0xf << first) & (0xf >> (4 - last)));
}

}  // namespace

AccessHistory::AccessHistory(const char* memory, std::size_t bytes)
    : memory_(memory),
      words_(static_cast<Word*>(std::calloc(((bytes + 3) / 4) + 1, sizeof(Word)))) {
  static_assert(std::is_trivially_copyable_v<Word>);
  if (words_ == nullptr) throw std::bad_alloc();
}

AccessHistory::Access AccessHistory::access_by(const Agent& agent) {
  return {.clock = agent.now.clock,
          .pc = agent.pc,
          .slot = static_cast<std::uint16_t>(agent.now.slot),
          .cta = static_cast<std::uint16_t>(agent.cta),
          .warp = static_cast<std::int16_t>(agent.warp),
          .by_itself = agent.by_itself,
          .fenced = agent.proxy != Proxy::kGeneric};
}

void AccessHistory::compare(const Access& earlier, const Access& now, bool earlier_wrote,
                            bool writes, std::size_t word) const {
  if (earlier.clock < first_ || (earlier.bytes & now.bytes) == 0) return;
  const Knowledge& knows = acting->knows;
  const bool ordered = knows.all.covers(earlier.epoch());
  // What was written through the generic proxy must be fenced before another proxy meets it.
  const bool across = earlier_wrote && !earlier.fenced && now.fenced;
  if (ordered && (!across || knows.fenced.covers(earlier.epoch()))) return;
  races->add({.memory = memory_,
              .offset = static_cast<std::uint32_t>(4 * word),
              .pc = now.pc,
              .cta = now.cta,
              .warp = now.warp,
              .by_itself = now.by_itself,
              .earlier_pc = earlier.pc,
              .earlier_cta = earlier.cta,
              .earlier_warp = earlier.warp,
              .earlier_by_itself = earlier.by_itself,
              .earlier_wrote = earlier_wrote,
              .writes = writes,
              .unfenced = ordered});
}

void AccessHistory::read(std::uint32_t offset, std::uint32_t bytes) {
  if (acting == nullptr) return;
  Access now = access_by(*acting);
  const std::uint32_t end = offset + bytes;
  for (std::uint32_t at = offset / 4; at * 4 < end; ++at) {
    Word& word = words_[at];
    now.bytes = bytes_of(at, offset, end);
    compare(word.writer, now, true, false, at);
    // In the place of an access of the same agent, of one that happens before, or of any.
    Access* place = &word.readers[0];
    for (Access& reader : word.readers) {
      if (reader.clock < first_ || reader.slot == now.slot) {
        place = &reader;
        break;
      }
      if (acting->knows.all.covers(reader.epoch())) place = &reader;
    }
    const std::uint8_t before = place->same_moment(now) ? place->bytes : std::uint8_t{0};
    *place = now;
    place->bytes |= before;
  }
}

void AccessHistory::write(std::uint32_t offset, std::uint32_t bytes) {
  if (acting == nullptr) return;
  Access now = access_by(*acting);
  const std::uint32_t end = offset + bytes;
  for (std::uint32_t at = offset / 4; at * 4 < end; ++at) {
    Word& word = words_[at];
    now.bytes = bytes_of(at, offset, end);
    compare(word.writer, now, true, true, at);
    for (Access& reader : word.readers) {
      compare(reader, now, false, true, at);
      reader.clock = 0;
    }
    const std::uint8_t before = word.writer.same_moment(now) ? word.writer.bytes : std::uint8_t{0};
    word.writer = now;
    word.writer.bytes |= before;
  }
}

}  // namespace gpusim
