// SPDX-License-Identifier: MIT
#include "ts/page_pool.h"

#include "ts/prefix_cache.h"

namespace ts {

PagePool::PagePool(std::int32_t num_pages, PrefixCache& cache, std::size_t group)
    : cache_(cache), group_(group) {
  free_.reserve(static_cast<std::size_t>(num_pages));
  for (PageId page = num_pages - 1; page >= 0; --page) free_.push_back(page);
}

std::int32_t PagePool::available() const {
  return free() + cache_.evictable(group_) - reserved_;
}

std::int32_t PagePool::free() const {
  return static_cast<std::int32_t>(free_.size() + cache_.orphans(group_).size());
}

Reservation PagePool::reserve(std::int32_t pages) {
  TS_ASSERT(pages >= 0 && pages <= available());
  reserved_ += pages;
  return Reservation(pages);
}

PageLease PagePool::take() {
  TS_ASSERT(available() > 0);
  return take_any();
}

PageLease PagePool::take(Reservation& promise) {
  TS_ASSERT(promise.pages_ > 0);
  --promise.pages_;
  --reserved_;
  return take_any();
}

PageLease PagePool::take_any() {
  if (!free_.empty()) {
    const PageId page = free_.back();
    free_.pop_back();
    return PageLease(page);
  }
  if (!cache_.orphans(group_).empty()) return cache_.take_orphan(group_);
  return cache_.evict(group_);
}

void PagePool::give_back(PageLease&& lease) {
  TS_ASSERT(lease.id() != kNoPage);
  free_.push_back(lease.consume());
}

void PagePool::give_back(Reservation&& promise) {
  reserved_ -= std::exchange(promise.pages_, 0);
  TS_ASSERT(reserved_ >= 0);
}

}  // namespace ts
