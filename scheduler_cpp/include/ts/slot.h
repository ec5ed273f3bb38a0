// SPDX-License-Identifier: MIT
// Slots: rows of the persistent per-sequence device tables.
#pragma once

#include <utility>
#include <vector>

#include "ts/check.h"
#include "ts/types.h"

namespace ts {

// The right to a row of the device tables; same discipline as PageLease.
class [[nodiscard]] SlotLease {
 public:
  SlotLease(SlotLease&& other) noexcept : id_(std::exchange(other.id_, kNoSlot)) {}
  SlotLease& operator=(SlotLease&& other) noexcept {
    TS_ASSERT(id_ == kNoSlot);
    id_ = std::exchange(other.id_, kNoSlot);
    return *this;
  }
  SlotLease(const SlotLease&) = delete;
  SlotLease& operator=(const SlotLease&) = delete;
  ~SlotLease() { TS_ASSERT(id_ == kNoSlot); }

  [[nodiscard]] SlotId id() const { return id_; }

 private:
  friend class SlotPool;
  explicit SlotLease(SlotId id) : id_(id) {}

  SlotId id_;
};

class SlotPool {
 public:
  explicit SlotPool(std::int32_t slots) {
    free_.reserve(static_cast<std::size_t>(slots));
    for (SlotId slot = slots - 1; slot >= 0; --slot) free_.push_back(slot);
  }

  [[nodiscard]] std::int32_t free() const { return static_cast<std::int32_t>(free_.size()); }

  // Precondition: free() > 0.
  [[nodiscard]] SlotLease take() {
    TS_ASSERT(!free_.empty());
    const SlotId slot = free_.back();
    free_.pop_back();
    return SlotLease(slot);
  }

  void give_back(SlotLease&& lease) { free_.push_back(std::exchange(lease.id_, kNoSlot)); }

 private:
  std::vector<SlotId> free_;
};

}  // namespace ts
