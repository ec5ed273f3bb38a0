// SPDX-License-Identifier: MIT
// What threads read again and again while they do nothing else: they wait for another's store.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

namespace gpusim {

// Of a fragment of a warp. Its loop may read at several instructions.
class Polls {
 public:
  struct Read {
    std::uint32_t pc = 0;
    std::uint32_t bytes = 0;    // of the first lane, and what they are; at most 8 are kept
    std::uint64_t address = 0;  // 0: none
    std::uint64_t value = 0;
    std::uint64_t digest = 0;  // of the addresses and values of all lanes
    bool one_place = false;    // all lanes read the same
    bool global = false;       // not shared memory
  };

  // `weak`: a compiler may keep such a value, so that it is read often in a loop that does much.
  void reads(const Read& read, bool weak) {
    for (Read& known : reads_) {
      if (known.address == 0 || known.pc != read.pc) continue;
      const bool again = known.address == read.address && known.digest == read.digest;
      known = read;
      if (!again) return progresses();
      last_ = static_cast<std::size_t>(&known - reads_.data());
      times_ = std::min(times_ + (weak ? 1 : kWeakly), kMost);
      idle_ = 0;
      return;
    }
    reads_[next_++ % reads_.size()] = read;
    progresses();
  }
  void progresses() { times_ = 0; }
  // One of its instructions was executed; true if that leaves it one that waits.
  bool idles() {
    if (wait() && ++idle_ == kLoop) progresses();
    return wait();
  }

  // It has read the same often enough to be taken for one that waits.
  [[nodiscard]] bool wait() const { return times_ >= kOften; }
  [[nodiscard]] std::uint32_t times() const { return times_; }
  [[nodiscard]] const auto& reads() const { return reads_; }
  [[nodiscard]] const Read& last() const { return reads_[last_]; }

 private:
  static constexpr std::uint32_t kWeakly = 256;  // a strong read counts as so many weak ones
  static constexpr std::uint32_t kOften = 4 * kWeakly;
  static constexpr std::uint32_t kMost = 1U << 30;
  static constexpr std::uint32_t kLoop = 1024;  // instructions without such a read: it has left

  std::array<Read, 4> reads_;
  std::uint32_t next_ = 0;
  std::size_t last_ = 0;
  std::uint32_t times_ = 0;
  std::uint32_t idle_ = 0;  // instructions since it last read the same
};

}  // namespace gpusim
