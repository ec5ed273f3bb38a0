// SPDX-License-Identifier: MIT
#include "happens_before.h"

#include "memory.h"
#include "program.h"

namespace gpusim {

thread_local Agent* acting = nullptr;
thread_local Races* races = nullptr;

namespace {

// The bytes of a word that an access of [begin, end) touches.
std::uint8_t bytes_of(std::uint32_t word, std::uint32_t begin, std::uint32_t end) {
  const std::uint32_t first = std::max(begin, word * 4) - word * 4;
  const std::uint32_t last = std::min(end, word * 4 + 4) - word * 4;
  return static_cast<std::uint8_t>((0xf << first) & (0xf >> (4 - last)));
}

}  // namespace

AccessHistory::Access AccessHistory::access_of(const Agent& agent, std::uint8_t bytes) {
  return {.epoch = agent.now,
          .pc = agent.pc,
          .cta = agent.cta,
          .warp = static_cast<std::int16_t>(agent.warp),
          .bytes = bytes,
          .proxy = agent.proxy,
          .by_itself = agent.by_itself};
}

void AccessHistory::compare(const Access& earlier, const Access& now, bool earlier_wrote,
                            bool writes, std::uint32_t offset) const {
  if (earlier.epoch.clock == 0 || (earlier.bytes & now.bytes) == 0) return;
  const Knowledge& knows = acting->knows;
  const bool ordered = knows.all.covers(earlier.epoch);
  // What was written through the generic proxy must be fenced before another proxy meets it.
  const bool across =
      earlier_wrote && earlier.proxy == Proxy::kGeneric && now.proxy == Proxy::kAsync;
  if (ordered && (!across || knows.fenced.covers(earlier.epoch))) return;
  races->add({.memory = memory_,
              .offset = offset,
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
  const std::uint32_t end = offset + bytes;
  for (std::uint32_t at = offset / 4; at * 4 < end; ++at) {
    Word& word = words_[at];
    const Access now = access_of(*acting, bytes_of(at, offset, end));
    compare(word.writer, now, true, false, at * 4);
    // In the place of an access of the same agent, of one that happens before, or of any.
    Access* place = &word.readers[0];
    for (Access& reader : word.readers) {
      if (reader.epoch.clock == 0 || reader.epoch.slot == now.epoch.slot) {
        place = &reader;
        break;
      }
      if (acting->knows.all.covers(reader.epoch)) place = &reader;
    }
    const std::uint8_t merged = place->epoch.slot == now.epoch.slot &&
                                        place->epoch.clock == now.epoch.clock
                                    ? place->bytes
                                    : std::uint8_t{0};
    *place = now;
    place->bytes |= merged;
  }
}

void AccessHistory::write(std::uint32_t offset, std::uint32_t bytes) {
  if (acting == nullptr) return;
  const std::uint32_t end = offset + bytes;
  for (std::uint32_t at = offset / 4; at * 4 < end; ++at) {
    Word& word = words_[at];
    const Access now = access_of(*acting, bytes_of(at, offset, end));
    compare(word.writer, now, true, true, at * 4);
    for (const Access& reader : word.readers) compare(reader, now, false, true, at * 4);
    const std::uint8_t merged = word.writer.epoch.slot == now.epoch.slot &&
                                        word.writer.epoch.clock == now.epoch.clock
                                    ? word.writer.bytes
                                    : std::uint8_t{0};
    word.writer = now;
    word.writer.bytes |= merged;
    for (Access& reader : word.readers) reader.epoch.clock = 0;
  }
}

}  // namespace gpusim
