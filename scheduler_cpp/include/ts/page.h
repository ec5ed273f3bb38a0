// SPDX-License-Identifier: MIT
// Who may do what to a page, as types. Both handles are four bytes, move-only, and must be handed
// back to where they came from: a handle that is dropped is a leak, which checked builds report.
//
//   PagePool --take--> PageLease --PrefixCache::insert--> SharedPage --release--> cached
//      ^------ give_back ---'                                                       |
//      '-------------------------------- evict --------------------------------------'
#pragma once

#include <utility>

#include "ts/check.h"
#include "ts/types.h"

namespace ts {

// The exclusive right to write a page.
class [[nodiscard]] PageLease {
 public:
  PageLease(PageLease&& other) noexcept : id_(std::exchange(other.id_, kNoPage)) {}
  PageLease& operator=(PageLease&& other) noexcept {
    TS_ASSERT(id_ == kNoPage);
    id_ = std::exchange(other.id_, kNoPage);
    return *this;
  }
  PageLease(const PageLease&) = delete;
  PageLease& operator=(const PageLease&) = delete;
  ~PageLease() { TS_ASSERT(id_ == kNoPage); }

  [[nodiscard]] PageId id() const { return id_; }

 private:
  friend class PagePool;
  friend class PrefixCache;
  explicit PageLease(PageId id) : id_(id) {}
  [[nodiscard]] PageId consume() { return std::exchange(id_, kNoPage); }

  PageId id_;
};

// One counted reference to an immutable page of the prefix cache.
class [[nodiscard]] SharedPage {
 public:
  SharedPage(SharedPage&& other) noexcept : id_(std::exchange(other.id_, kNoPage)) {}
  SharedPage& operator=(SharedPage&& other) noexcept {
    TS_ASSERT(id_ == kNoPage);
    id_ = std::exchange(other.id_, kNoPage);
    return *this;
  }
  SharedPage(const SharedPage&) = delete;
  SharedPage& operator=(const SharedPage&) = delete;
  ~SharedPage() { TS_ASSERT(id_ == kNoPage); }

  [[nodiscard]] PageId id() const { return id_; }

 private:
  friend class PrefixCache;
  explicit SharedPage(PageId id) : id_(id) {}
  [[nodiscard]] PageId consume() { return std::exchange(id_, kNoPage); }

  PageId id_;
};

// The page a step writes KV to. There is no such function for a SharedPage.
[[nodiscard]] inline PageId write_target(const PageLease& lease) {
  return lease.id();
}

}  // namespace ts
