// SPDX-License-Identifier: MIT
// Races between the lanes of a warp, which since Volta are in no order with each other but where
// they meet: at an instruction with .sync, or at a barrier.
//
// Kept are the accesses since the lanes met last. What orders some lanes of a warp is taken to
// order all of them, and so is an mbarrier or flag that one has announced and one has waited for:
// races may be missed where a warp is split up, but none is made up.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace gpusim {

class LaneOrder {
 public:
  static constexpr std::uint8_t kNobody = 0xff;
  static constexpr std::uint8_t kSeveral = 0xfe;

  struct Access {
    std::uint64_t address;  // of global memory, or kSharedWindow and a shared::cluster address
    std::uint32_t bytes;
    std::uint32_t pc;
    std::uint8_t lane;
    bool writes = false;
    bool strong = false;
    bool same = false;  // it writes what is there already, which is no race with another write
  };
  // Another lane's access that is in no order with one; kSeveral: of more than one lane.
  struct Earlier {
    std::uint8_t lane = kNobody;  // kNobody: there is none
    bool wrote = false;
    std::uint32_t pc = 0;
    std::uint64_t address = 0;
  };

  void meet() {
    ++window_;
    used_ = 0;
    announced_ = false;
  }
  // One of the lanes tells others what it has done, through an mbarrier or a flag.
  void announce() { announced_ = true; }
  // One of them has waited for such.
  void wait() {
    if (announced_) meet();
  }

  [[nodiscard]] Earlier access(const Access& now);
  // Of an operation that a lane begins and that reads these bytes: another's write, if there is
  // one.
  [[nodiscard]] Earlier written(std::uint64_t address, std::uint64_t bytes,
                                std::uint8_t lane) const;

 private:
  // The accesses of 16 bytes.
  struct Line {
    std::uint64_t number = 0;
    std::uint32_t window = 0;
    std::uint32_t writer_pc = 0;
    std::uint32_t reader_pc = 0;
    std::array<std::uint8_t, 4> writers{};  // of each word, the last lane
    std::array<std::uint8_t, 4> readers{};
    std::uint16_t written = 0;  // a bit for each byte
    std::uint16_t read = 0;
    bool weak_write = false;
    bool weak_read = false;
  };
  static constexpr std::size_t kFewest = 256;
  static constexpr std::size_t kMost = 16384;  // lines that are looked back

  [[nodiscard]] Line& line(std::uint64_t number);
  static void remember(Line& line, const Access& now, std::size_t word, std::uint16_t bytes);
  [[nodiscard]] static Earlier conflict(const Line& line, const Access& now, std::uint16_t bytes);
  void grow();

  std::vector<Line> lines_;  // by a hash of their number; a power of two
  std::uint32_t window_ = 1;
  std::size_t used_ = 0;
  bool announced_ = false;
};

}  // namespace gpusim
