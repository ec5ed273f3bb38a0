// SPDX-License-Identifier: MIT
// Every page that is not in the prefix cache, and the promises made on pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "ts/check.h"
#include "ts/page.h"
#include "ts/types.h"

namespace ts {

class PrefixCache;

// A promise of pages not yet taken, so that whoever was admitted can finish its prefill.
class [[nodiscard]] Reservation {
 public:
  Reservation(Reservation&& other) noexcept : pages_(std::exchange(other.pages_, 0)) {}
  Reservation& operator=(Reservation&& other) noexcept {
    TS_ASSERT(pages_ == 0);
    pages_ = std::exchange(other.pages_, 0);
    return *this;
  }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;
  ~Reservation() { TS_ASSERT(pages_ == 0); }

  [[nodiscard]] static Reservation none() { return Reservation(0); }
  [[nodiscard]] std::int32_t pages() const { return pages_; }

 private:
  friend class PagePool;
  explicit Reservation(std::int32_t pages) : pages_(pages) {}
  std::int32_t pages_;
};

// Hands out pages: a free one if there is one, else the least recently used cached one.
class PagePool {
 public:
  // `group`: whose pages these are, see PrefixCache.
  PagePool(std::int32_t num_pages, PrefixCache& cache, std::size_t group = 0);

  // Pages that can be promised or taken now: free, or cached and unreferenced, and not promised.
  [[nodiscard]] std::int32_t available() const;
  [[nodiscard]] std::int32_t free() const;
  [[nodiscard]] std::int32_t reserved() const { return reserved_; }

  // Precondition of both: available() >= pages.
  [[nodiscard]] Reservation reserve(std::int32_t pages);
  [[nodiscard]] PageLease take();

  [[nodiscard]] PageLease take(Reservation& promise);  // precondition: promise.pages() > 0

  void give_back(PageLease&& lease);
  void give_back(Reservation&& promise);

  [[nodiscard]] const std::vector<PageId>& free_pages() const { return free_; }

 private:
  [[nodiscard]] PageLease take_any();

  PrefixCache& cache_;
  std::size_t group_;
  std::vector<PageId> free_;
  std::int32_t reserved_ = 0;
};

}  // namespace ts
