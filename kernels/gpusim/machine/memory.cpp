// SPDX-License-Identifier: MIT
#include "memory.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

namespace gpusim {

std::string hex(std::uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

GlobalMemory::GlobalMemory(std::vector<Allocation> allocations)
    : allocations_(std::move(allocations)) {
  allocations_.push_back({"nothing", 0, 0});
  std::ranges::sort(allocations_, {}, &Allocation::begin);
  last_ = allocations_.data();
}

void GlobalMemory::find(std::uint64_t address, std::uint64_t bytes) {
  auto after = std::ranges::upper_bound(allocations_, address, {}, &Allocation::begin);
  // Allocations may overlap (views of one storage): the widest that begins before is asked, too.
  for (auto at = after; at != allocations_.begin();) {
    --at;
    if (at->holds(address, bytes)) {
      last_ = &*at;
      return;
    }
  }
  std::string near = "no tensor of this launch is near";
  if (after != allocations_.begin() && std::prev(after)->size > 0) {
    const Allocation& before = *std::prev(after);
    const std::uint64_t past = address + bytes - (before.begin + before.size);
    near = std::to_string(past) + " bytes past the end of " + before.name + " (" +
           std::to_string(before.size) + " bytes)";
  }
  if (after != allocations_.end() && near.starts_with("no")) {
    near = std::to_string(after->begin - address) + " bytes before " + after->name;
  }
  throw Fault("out-of-bounds", std::to_string(bytes) + " bytes of global memory at " +
                                   hex(address) + " belong to no tensor of this launch: " + near);
}

std::string GlobalMemory::describe(std::uint64_t address) const {
  const auto found = std::ranges::find_if(
      allocations_, [&](const Allocation& allocation) { return allocation.holds(address, 1); });
  std::string where = "global memory at " + hex(address);
  if (found == allocations_.end()) return where;
  return where + " (" + found->name + ", byte " + std::to_string(address - found->begin) + ")";
}

void GlobalMemory::misaligned(std::uint64_t address, std::uint64_t bytes, std::uint64_t align) {
  throw Fault("misaligned", "an access of " + std::to_string(bytes) +
                                " bytes to global memory at " + hex(address) +
                                " is not aligned to " + std::to_string(align));
}

SharedMemory::SharedMemory(std::size_t bytes)
    : bytes_(kReservedShared + bytes, std::byte{0xff}),
      written_(bytes_.size(), 0),
      touched_((bytes_.size() / kBlock) + 1, 0),
      history_("shared", bytes_.size()) {}

void SharedMemory::renew() {
  for (std::size_t block = 0; block < touched_.size(); ++block) {
    if (touched_[block] == 0) continue;
    const std::size_t begin = block * kBlock;
    const std::size_t bytes = std::min<std::size_t>(kBlock, bytes_.size() - begin);
    std::fill_n(bytes_.data() + begin, bytes, std::byte{0xff});
    std::fill_n(written_.data() + begin, bytes, std::uint8_t{0});
    touched_[block] = 0;
  }
  history_.forget();
  visits_.clear();
  mailboxes.clear();
}

void SharedMemory::misaligned(std::uint32_t offset, std::uint32_t bytes, std::uint32_t align) {
  throw Fault("misaligned", "an access of " + std::to_string(bytes) +
                                " bytes to shared memory at " + hex(offset) +
                                " is not aligned to " + std::to_string(align));
}

void SharedMemory::outside(std::uint32_t offset, std::uint32_t bytes) const {
  throw Fault("out-of-bounds", std::to_string(bytes) + " bytes of shared memory at " + hex(offset) +
                                   " are outside the CTA's, which ends at " + hex(bytes_.size()));
}

void SharedMemory::wrote(std::uint32_t offset, std::uint32_t bytes) {
  visit();
  history_.write(offset, bytes);
  std::uint8_t* const flags = written_.data() + offset;
  if (bytes == 16) {  // of a swizzle: the most usual
    std::memset(flags, 1, 16);
  } else {
    std::memset(flags, 1, bytes);
  }
}

void SharedMemory::demand_written(std::uint32_t offset, std::uint32_t bytes) {
  visit();
  history_.read(offset, bytes);
  const std::uint8_t* const flags = written_.data() + offset;
  if (bytes == 16) {
    static constexpr std::array<std::uint8_t, 16> kAll{1, 1, 1, 1, 1, 1, 1, 1,
                                                       1, 1, 1, 1, 1, 1, 1, 1};
    if (std::memcmp(flags, kAll.data(), 16) == 0) return;
  } else if (std::memchr(flags, 0, bytes) == nullptr) {
    return;
  }
  throw Fault("uninitialised", std::to_string(bytes) + " bytes of shared memory at " + hex(offset) +
                                   " are read, and some were never written");
}

}  // namespace gpusim
