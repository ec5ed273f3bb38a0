// SPDX-License-Identifier: MIT
#include "lane_order.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace gpusim {
namespace {

constexpr std::uint64_t kLine = 16;

std::size_t hash_of(std::uint64_t number) {
  return static_cast<std::size_t>((number * 0x9e3779b97f4a7c15) >> 40);
}

std::uint16_t bytes_of(std::uint64_t line, std::uint64_t begin, std::uint64_t end) {
  const std::uint64_t first = std::max(begin, line * kLine) - (line * kLine);
  const std::uint64_t last = std::min(end, (line + 1) * kLine) - (line * kLine);
  return static_cast<std::uint16_t>((0xffffU << first) & (0xffffU >> (kLine - last)));
}

}  // namespace

LaneOrder::Earlier LaneOrder::access(const Access& now) {
  Earlier found;
  const std::uint64_t end = now.address + now.bytes;
  for (std::uint64_t number = now.address / kLine; number * kLine < end; ++number) {
    Line& line = this->line(number);
    const std::uint16_t bytes = bytes_of(number, now.address, end);
    if (found.lane == kNobody) found = conflict(line, now, bytes);
    for (std::size_t word = 0; word < 4; ++word) {
      const auto here = static_cast<std::uint16_t>(bytes & (15U << (4 * word)));
      if (here != 0) remember(line, now, word, here);
    }
    (now.writes ? line.writer_pc : line.reader_pc) = now.pc;
    bool& weak = now.writes ? line.weak_write : line.weak_read;
    weak = weak || !now.strong;
  }
  return found;
}

// Of a word one lane is remembered, with the bytes that it touched, or that several have read.
void LaneOrder::remember(Line& line, const Access& now, std::size_t word, std::uint16_t bytes) {
  std::uint8_t& lane = (now.writes ? line.writers : line.readers)[word];
  std::uint16_t& touched = now.writes ? line.written : line.read;
  const auto before = static_cast<std::uint16_t>(touched & (15U << (4 * word)));
  if (before == 0 || lane == now.lane) {
    lane = now.lane;
    touched |= bytes;
  } else if (now.writes || (before & bytes) == 0) {
    lane = now.lane;
    touched = static_cast<std::uint16_t>((touched & ~before) | bytes);
  } else {
    lane = kSeveral;
    touched = static_cast<std::uint16_t>(touched & ~(before & ~bytes));
  }
}

LaneOrder::Earlier LaneOrder::conflict(const Line& line, const Access& now, std::uint16_t bytes) {
  const std::uint64_t begin = line.number * kLine;
  for (std::size_t word = 0; word < 4; ++word) {
    const std::uint16_t here = bytes & (15U << (4 * word));
    const bool wrote = (line.written & here) != 0 && line.writers[word] != now.lane;
    if (wrote && !(now.writes && now.same) && (line.weak_write || !now.strong)) {
      return {line.writers[word], true, line.writer_pc, begin + (4 * word)};
    }
    const bool read = (line.read & here) != 0 && line.readers[word] != now.lane;
    if (now.writes && read && (line.weak_read || !now.strong)) {
      return {line.readers[word], false, line.reader_pc, begin + (4 * word)};
    }
  }
  return {};
}

LaneOrder::Earlier LaneOrder::written(std::uint64_t address, std::uint64_t bytes,
                                      std::uint8_t lane) const {
  if (used_ == 0) return {};
  const std::uint64_t end = address + bytes;
  for (std::uint64_t number = address / kLine; number * kLine < end; ++number) {
    const std::size_t mask = lines_.size() - 1;
    for (std::size_t at = hash_of(number) & mask;; at = (at + 1) & mask) {
      const Line& line = lines_[at];
      if (line.window != window_) break;
      if (line.number != number) continue;
      const Access now{.address = address, .bytes = 0, .pc = 0, .lane = lane};
      const Earlier found = conflict(line, now, bytes_of(number, address, end));
      if (found.lane != kNobody) return found;
      break;
    }
  }
  return {};
}

LaneOrder::Line& LaneOrder::line(std::uint64_t number) {
  if (2 * used_ >= lines_.size()) grow();
  const std::size_t mask = lines_.size() - 1;
  for (std::size_t at = hash_of(number) & mask;; at = (at + 1) & mask) {
    Line& line = lines_[at];
    if (line.window != window_) {
      line = {.number = number, .window = window_};
      ++used_;
      return line;
    }
    if (line.number == number) return line;
  }
}

void LaneOrder::grow() {
  if (lines_.size() >= 2 * kMost) {  // what is older is forgotten
    ++window_;
    used_ = 0;
    return;
  }
  const std::vector<Line> old =
      std::exchange(lines_, std::vector<Line>(std::max(kFewest, 2 * lines_.size())));
  used_ = 0;
  for (const Line& known : old) {
    if (known.window == window_) line(known.number) = known;
  }
}

}  // namespace gpusim
