// SPDX-License-Identifier: MIT
#include "global_history.h"

#include <algorithm>

namespace gpusim {
namespace {

// Of a list, so that a word that everyone reads costs no more than one that a few do.
constexpr std::size_t kLongest = 64;
constexpr std::size_t kKept = 16;  // of a list that has become longer

}  // namespace

GlobalHistory::GlobalHistory() : accesses_(1), entries_(1) {}

void GlobalHistory::read(std::uint64_t address, std::uint64_t bytes, Strength strength,
                         const Correspondence* order) {
  access<false>(address, bytes, false, strength, order);
}

void GlobalHistory::write(std::uint64_t address, std::uint64_t bytes, bool same, Strength strength,
                          const Correspondence* order) {
  access<true>(address, bytes, same, strength, order);
}

template <bool kWrites>
void GlobalHistory::access(std::uint64_t address, std::uint64_t bytes, bool same, Strength strength,
                           const Correspondence* order) {
  if (acting == nullptr || bytes == 0) return;
  const Number now = number_of({.clock = acting->now.clock,
                                .slot = acting->now.slot,
                                .cluster = acting->cluster,
                                .pc = acting->pc,
                                .cta = static_cast<std::uint16_t>(acting->cta),
                                .warp = static_cast<std::int16_t>(acting->warp),
                                .scope = strength.scope,
                                .strong = strength.strong(),
                                .by_itself = acting->by_itself,
                                .async = acting->proxy == Proxy::kAsync});
  const std::uint64_t end = address + bytes;
  for (std::uint64_t at = address & ~std::uint64_t{3}; at < end;) {
    Page& page = this->page(at);
    if (kWrites && page.writers == nullptr) page.writers = std::make_unique<Number[]>(kPageWords);
    if (!kWrites && page.readers == nullptr) page.readers = std::make_unique<Number[]>(kPageWords);
    const std::uint64_t end_of_page = std::min(end, (at / kPageBytes + 1) * kPageBytes);
    for (; at < end_of_page; at += 4) {
      const std::size_t word = at % kPageBytes / 4;
      const std::uint64_t first = std::max(at, address) - at;
      const std::uint64_t last = std::min(at + 4, end) - at;
      const auto touched = static_cast<std::uint8_t>((15U << first) & (15U >> (4 - last)));
      const Number writers = page.writers == nullptr ? 0 : page.writers[word];
      const Number readers = page.readers == nullptr ? 0 : page.readers[word];
      Outcome& outcome = outcome_;
      if (outcome.access != now || outcome.writers != writers || outcome.readers != readers ||
          outcome.bytes != touched || outcome.wrote != kWrites || outcome.same != same) {
        if (!same) compare(writers, now, touched, true, kWrites, at, order);
        if (kWrites) compare(readers, now, touched, false, true, at, order);
        outcome = {.access = now,
                   .bytes = touched,
                   .wrote = kWrites,
                   .same = same,
                   .writers = writers,
                   .readers = readers,
                   .writers_after = writers,
                   .readers_after = readers};
        if (kWrites) {
          outcome.writers_after = list_of(now, touched, unordered(writers, touched, kLongest));
          outcome.readers_after = unordered(readers, touched, kLongest);
        } else {
          outcome.readers_after = list_of(now, touched, unordered(readers, touched, kLongest));
        }
      }
      if (kWrites) page.writers[word] = outcome.writers_after;
      if (page.readers != nullptr) page.readers[word] = outcome.readers_after;
    }
  }
}

GlobalHistory::Page& GlobalHistory::page(std::uint64_t address) {
  const std::uint64_t number = address / kPageBytes;
  auto& [recent, page] = recent_pages_[number % recent_pages_.size()];
  if (page == nullptr || recent != number) {
    recent = number;
    page = &pages_[number];
  }
  return *page;
}

GlobalHistory::Number GlobalHistory::number_of(const Access& access) {
  const std::size_t hash = (access.clock * 0x9e3779b1U) ^ (access.slot * 0x85ebca6bU) ^
                           (access.pc * 0xc2b2ae35U) ^ (access.cluster * 0x27d4eb2fU);
  Number& recent = recent_accesses_[(hash ^ hash >> 15) % recent_accesses_.size()];
  if (recent == 0 || accesses_[recent] != access) {
    recent = static_cast<Number>(accesses_.size());
    accesses_.push_back(access);
  }
  return recent;
}

GlobalHistory::Number GlobalHistory::list_of(Number access, std::uint8_t bytes, Number rest) {
  const Entry entry{.access = access,
                    .rest = rest,
                    .length = static_cast<std::uint16_t>(entries_[rest].length + 1),
                    .bytes = bytes};
  const std::size_t hash = (access * 0x9e3779b1U) ^ (rest * 0x85ebca6bU) ^ bytes;
  Number& recent = recent_entries_[(hash ^ hash >> 15) % recent_entries_.size()];
  if (recent == 0 || entries_[recent] != entry) {
    recent = static_cast<Number>(entries_.size());
    entries_.push_back(entry);
  }
  return recent;
}

bool GlobalHistory::known(const Access& access) {
  const Knowledge& knows = acting->knows;
  return access.cluster == acting->cluster ? knows.all.covers(access.epoch())
                                           : knows.elsewhere.covers(access.cluster, access.epoch());
}

GlobalHistory::Number GlobalHistory::unordered(Number list, std::uint8_t bytes, std::size_t most) {
  if (list == 0 || most == 0) return 0;
  if (entries_[list].length >= kLongest) most = std::min(most, kKept);
  const Entry entry = entries_[list];
  const Number rest = unordered(entry.rest, bytes, most - 1);
  if ((entry.bytes & ~bytes) == 0 && known(accesses_[entry.access])) return rest;
  return rest == entry.rest ? list : list_of(entry.access, entry.bytes, rest);
}

void GlobalHistory::compare(Number list, Number now, std::uint8_t bytes, bool wrote, bool writes,
                            std::uint64_t address, const Correspondence* order) {
  for (; list != 0; list = entries_[list].rest) {
    const Entry& entry = entries_[list];
    if ((entry.bytes & bytes) == 0) continue;
    const Access& earlier = accesses_[entry.access];
    const Access& later = accesses_[now];
    const Knowledge& knows = acting->knows;
    const bool ordered = known(earlier);
    // What was written through the generic proxy must be fenced before another proxy meets it.
    const bool across = wrote && !earlier.async && later.async;
    const bool fenced = earlier.cluster == acting->cluster
                            ? knows.fenced_global.covers(earlier.epoch())
                            : knows.elsewhere.fenced_covers(earlier.cluster, earlier.epoch());
    if (ordered && (!across || fenced)) continue;
    if (!ordered && earlier.strong && later.strong &&
        includes(earlier.scope, earlier.whereabouts(), later.whereabouts()) &&
        includes(later.scope, later.whereabouts(), earlier.whereabouts())) {
      continue;
    }
    std::string why;
    if (!ordered && earlier.strong && later.strong) {
      why = "both are strong, but the scope of one does not include the other";
    } else if (!ordered && order != nullptr) {
      why = order->missed().why_not(earlier.cluster, earlier.epoch());
    }
    races->add({.memory = "global",
                .offset = address,
                .pc = later.pc,
                .cta = later.cta,
                .warp = later.warp,
                .by_itself = later.by_itself,
                .earlier_pc = earlier.pc,
                .earlier_cta = earlier.cta,
                .earlier_warp = earlier.warp,
                .earlier_by_itself = earlier.by_itself,
                .earlier_wrote = wrote,
                .writes = writes,
                .unfenced = ordered,
                .cluster = later.cluster,
                .earlier_cluster = earlier.cluster,
                .why = std::move(why)});
  }
}

}  // namespace gpusim
