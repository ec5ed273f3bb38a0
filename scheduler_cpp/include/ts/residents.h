// SPDX-License-Identifier: MIT
// Which blocks have a page in one place (a cache group's pool, or the host tier), how many refer to
// each page, and in which order those that nobody refers to are given up: least recently used
// first.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "ts/check.h"
#include "ts/types.h"

namespace ts {

class Residents {
 public:
  explicit Residents(std::int32_t num_pages)
      : block_of_(static_cast<std::size_t>(num_pages), kNoBlock) {}

  [[nodiscard]] PageId page(BlockId block) const {
    const auto at = static_cast<std::size_t>(block);
    return at < seats_.size() ? seats_[at].page : kNoPage;
  }
  [[nodiscard]] bool has(BlockId block) const { return page(block) != kNoPage; }
  void prefetch(BlockId block) const {
    const auto at = static_cast<std::size_t>(block);
    if (at < seats_.size()) __builtin_prefetch(&seats_[at], 1);
  }
  [[nodiscard]] BlockId block(PageId page) const {
    return block_of_[static_cast<std::size_t>(page)];
  }
  [[nodiscard]] bool holds(PageId page) const { return block(page) != kNoBlock; }
  [[nodiscard]] std::int32_t references(BlockId block) const { return seat(block).references; }
  // Has a token been sampled with the block's page in its context?
  [[nodiscard]] bool proven(BlockId block) const { return seat(block).proven; }
  void prove(BlockId block) { seat(block).proven = true; }

  [[nodiscard]] std::int32_t size() const { return size_; }
  [[nodiscard]] std::int32_t unreferenced() const { return unreferenced_; }
  [[nodiscard]] BlockId oldest() const { return oldest_; }  // unreferenced; kNoBlock: none
  [[nodiscard]] BlockId newer(BlockId block) const { return seat(block).newer; }

  // A page of a block comes in, referred to once.
  void settle(BlockId block, PageId page) {
    if (static_cast<std::size_t>(block) >= seats_.size()) {
      seats_.resize(static_cast<std::size_t>(block) + 1);
    }
    TS_ASSERT(!has(block) && !holds(page));
    seat(block) = {.page = page, .references = 1};
    block_of_[static_cast<std::size_t>(page)] = block;
    ++size_;
  }

  void acquire(BlockId block) {
    if (seat(block).references++ == 0) unlink(block);
  }
  void release(BlockId block) {
    TS_ASSERT(seat(block).references > 0);
    if (--seat(block).references == 0) append(block);
  }
  // As if it had been acquired and released.
  void touch(BlockId block) {
    if (seat(block).references > 0) return;
    unlink(block);
    append(block);
  }

  // Its page goes. Precondition: nobody refers to it.
  [[nodiscard]] PageId leave(BlockId block) {
    TS_ASSERT(seat(block).references == 0);
    unlink(block);
    const PageId page = std::exchange(seat(block), Seat{}).page;
    block_of_[static_cast<std::size_t>(page)] = kNoBlock;
    --size_;
    return page;
  }

 private:
  struct Seat {
    PageId page = kNoPage;
    std::int32_t references : 31 = 0;
    bool proven : 1 = false;
    BlockId older = kNoBlock;  // neighbours among those that nobody refers to
    BlockId newer = kNoBlock;
  };
  static_assert(sizeof(Seat) == 16);

  [[nodiscard]] Seat& seat(BlockId block) { return seats_[static_cast<std::size_t>(block)]; }
  [[nodiscard]] const Seat& seat(BlockId block) const {
    return seats_[static_cast<std::size_t>(block)];
  }

  void append(BlockId block) {
    seat(block).older = newest_;
    seat(block).newer = kNoBlock;
    (newest_ == kNoBlock ? oldest_ : seat(newest_).newer) = block;
    newest_ = block;
    ++unreferenced_;
  }

  void unlink(BlockId block) {
    Seat& entry = seat(block);
    (entry.older == kNoBlock ? oldest_ : seat(entry.older).newer) = entry.newer;
    (entry.newer == kNoBlock ? newest_ : seat(entry.newer).older) = entry.older;
    entry.older = entry.newer = kNoBlock;
    --unreferenced_;
  }

  std::vector<Seat> seats_;        // by block
  std::vector<BlockId> block_of_;  // by page
  BlockId oldest_ = kNoBlock;
  BlockId newest_ = kNoBlock;
  std::int32_t size_ = 0;
  std::int32_t unreferenced_ = 0;
};

}  // namespace ts
