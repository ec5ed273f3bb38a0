// SPDX-License-Identifier: MIT
// The memory of a launch. Global memory is the host's: the addresses are the same, and only what
// was passed to the launch may be touched. Shared memory knows which of its bytes were written, and
// who accessed them last.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "acts.h"
#include "global_history.h"
#include "happens_before.h"
#include "program.h"

namespace gpusim {

// A range of host memory that a kernel may touch: a tensor, or the kernel's parameters.
struct Allocation {
  std::string name;
  std::uint64_t begin;
  std::uint64_t size;
  [[nodiscard]] bool holds(std::uint64_t address, std::uint64_t bytes) const {
    return address >= begin && address - begin <= size && bytes <= size - (address - begin);
  }
};

class GlobalMemory {
 public:
  explicit GlobalMemory(std::vector<Allocation> allocations);

  // The agent that acts reads or writes these bytes. Race if that is in no order with others'
  // accesses. `order`: of its warp, to explain a race.
  void read(std::uint64_t address, std::uint64_t bytes, Strength strength = {},
            const Correspondence* order = nullptr) {
    history_.read(address, bytes, strength, order);
  }
  // `what`: what they are from here on. That it is there already makes two writes no race.
  void write(std::uint64_t address, const std::byte* what, std::uint64_t bytes,
             Strength strength = {}, const Correspondence* order = nullptr) {
    const bool same = std::memcmp(reinterpret_cast<const std::byte*>(address), what, bytes) == 0;
    changes_ += same ? 0 : 1;
    history_.write(address, bytes, same, strength, order);
  }
  // By a read-modify-write.
  void update(std::uint64_t address, std::uint64_t bytes, Strength strength,
              const Correspondence* order = nullptr) {
    ++changes_;
    history_.write(address, bytes, false, strength, order);
  }
  // How often bytes were written.
  [[nodiscard]] const std::uint64_t& changes() const { return changes_; }
  // As messages name it: the tensor, and how far into it.
  [[nodiscard]] std::string describe(std::uint64_t address) const;

  // The host memory at `address`; Fault if not all of `bytes` lie in one allocation, or if the
  // address is no multiple of `align`.
  [[nodiscard]] std::byte* at(std::uint64_t address, std::uint64_t bytes, std::uint64_t align) {
    if (address % align != 0) misaligned(address, bytes, align);
    if (!last_->holds(address, bytes)) find(address, bytes);
    return reinterpret_cast<std::byte*>(address);
  }

 private:
  void find(std::uint64_t address, std::uint64_t bytes);
  [[noreturn]] static void misaligned(std::uint64_t address, std::uint64_t bytes,
                                      std::uint64_t align);

  std::vector<Allocation> allocations_;  // by address
  const Allocation* last_;               // found last
  std::uint64_t changes_ = 0;
  GlobalHistory history_;

 public:
  Mailboxes mailboxes;  // by address
};

// Where a generic address of shared memory begins; below are those of global memory.
inline constexpr std::uint64_t kSharedWindow = std::uint64_t{1} << 60;
// A shared::cluster address: the CTA's rank in its cluster above, the offset below. (Kernels clear
// bit 24 to address the even CTA of a pair, so this is how the chip has it.)
inline constexpr unsigned kRankShift = 24;
// The system keeps the first bytes of every CTA's shared memory.
inline constexpr std::uint32_t kReservedShared = 1024;
inline constexpr std::uint32_t kMbarrierBytes = 8;

class SharedMemory {
 public:
  // `bytes`: without what the system keeps.
  explicit SharedMemory(std::size_t bytes);

  // As new, for another CTA.
  void renew();

  // Fault if the bytes are not all there, or misaligned.
  [[nodiscard]] std::byte* at(std::uint32_t offset, std::uint32_t bytes, std::uint32_t align) {
    check(offset, bytes, align);
    const std::uint32_t block = offset / kBlock;
    touched_[block] = true;
    const std::uint32_t last = (offset + bytes) / kBlock;
    if (last != block) std::fill_n(touched_.begin() + block, last - block + 1, true);
    return bytes_.data() + offset;
  }
  // The agent that acts writes these bytes. Race if that is in no order with others' accesses.
  void wrote(std::uint32_t offset, std::uint32_t bytes);
  // The agent that acts reads these bytes: the same, and Fault if one of them was never written.
  void demand_written(std::uint32_t offset, std::uint32_t bytes);
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  // What agents of other CTAs did here last.
  [[nodiscard]] const Acts& visits() const { return visits_; }

  // The agent that acts, an operation under way, is there until the CTA knows that it is complete.
  void is_visited() { visits_.add(*acting); }

  std::uint32_t owner = 0;  // rank of its CTA

  Mailboxes mailboxes;  // by offset

 private:
  void check(std::uint32_t offset, std::uint32_t bytes, std::uint32_t align) const {
    if (offset % align != 0) misaligned(offset, bytes, align);
    if (offset < kReservedShared || offset > bytes_.size() || bytes > bytes_.size() - offset) {
      outside(offset, bytes);
    }
  }
  [[noreturn]] static void misaligned(std::uint32_t offset, std::uint32_t bytes,
                                      std::uint32_t align);
  [[noreturn]] void outside(std::uint32_t offset, std::uint32_t bytes) const;

  static constexpr std::uint32_t kBlock = 1024;

  std::vector<std::byte> bytes_;
  void visit() {
    if (acting != nullptr && acting->cta != owner) visits_.add(*acting);
  }

  std::vector<std::uint8_t> written_;  // a flag for each byte
  std::vector<std::uint8_t> touched_;  // a flag for each block: it may not be as new
  AccessHistory history_;
  Acts visits_;
};

[[nodiscard]] std::string hex(std::uint64_t value);

}  // namespace gpusim
