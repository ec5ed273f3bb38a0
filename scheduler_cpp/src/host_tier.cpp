// SPDX-License-Identifier: MIT
#include "ts/host_tier.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

namespace ts {

HostTier::HostTier(std::int32_t num_pages, BlockIndex& blocks, KvEventLog& events)
    : num_pages_(num_pages), blocks_(blocks), events_(events), residents_(num_pages) {
  free_.reserve(static_cast<std::size_t>(num_pages));
  for (PageId page = num_pages - 1; page >= 0; --page) free_.push_back(page);
}

void HostTier::evicted(BlockId block, PageId device_page) {
  if (!enabled()) return;
  if (residents_.has(block)) {
    residents_.touch(block);  // in the order of eviction, so that leaves stay older
    return;
  }
  std::optional<HostPageLease> page = take();
  if (!page) return;
  blocks_.hold(block);
  pending_.push_back({block, device_page, std::move(*page), era_});
}

std::vector<WriteBack> HostTier::take_write_backs(std::size_t first) {
  const auto from = pending_.begin() + static_cast<std::ptrdiff_t>(first);
  std::vector<WriteBack> taken(std::make_move_iterator(from),
                               std::make_move_iterator(pending_.end()));
  pending_.erase(from, pending_.end());
  return taken;
}

std::optional<HostPageLease> HostTier::take() {
  if (free_.empty() && residents_.unreferenced() == 0) return std::nullopt;
  if (free_.empty()) return HostPageLease(evict());
  const PageId page = free_.back();
  free_.pop_back();
  return HostPageLease(page);
}

PageId HostTier::evict() {
  const BlockId block = residents_.oldest();
  events_.removed(blocks_.hash(block), blocks_.salt(block), Medium::kHost);
  const PageId page = residents_.leave(block);
  blocks_.let_go(block);
  return page;
}

void HostTier::written(std::vector<WriteBack>&& done, bool ok) {
  for (WriteBack& store : done) {
    const bool wanted = store.era == era_ && !blocks_.withdrawn(store.block);
    if (ok && wanted && !residents_.has(store.block)) {
      residents_.settle(store.block, std::exchange(store.host_page.id_, kNoPage));
      residents_.release(store.block);
      const BlockId parent = blocks_.parent(store.block);
      events_.stored(blocks_.hash(store.block),
                     parent == kNoBlock ? std::nullopt : std::optional(blocks_.hash(parent)),
                     blocks_.tokens(store.block), blocks_.salt(store.block), Medium::kHost);
    } else {
      give_back(std::move(store.host_page));
      blocks_.let_go(store.block);
    }
  }
}

void HostTier::unpin(BlockId block) {
  residents_.release(block);
  if (blocks_.withdrawn(block) && residents_.references(block) == 0) leave(block);
}

void HostTier::withdraw(const std::vector<BlockId>& blocks) {
  std::vector<PageId> pages;
  for (const BlockId block : blocks) {
    if (residents_.has(block)) pages.push_back(residents_.page(block));
  }
  std::ranges::sort(pages);
  for (const PageId page : pages) {
    const BlockId block = residents_.block(page);
    events_.removed(blocks_.hash(block), blocks_.salt(block), Medium::kHost);
  }
  for (BlockId block = residents_.oldest(); block != kNoBlock;) {
    const BlockId next = residents_.newer(block);
    if (blocks_.withdrawn(block)) leave(block);
    block = next;
  }
}

void HostTier::clear() {
  while (residents_.oldest() != kNoBlock) leave(residents_.oldest());
  ++era_;
}

void HostTier::leave(BlockId block) {
  free_.push_back(residents_.leave(block));
  blocks_.let_go(block);
}

void HostTier::check(std::int32_t under_way) const {
  const auto demand = [](bool holds, const char* invariant) {
    if (!holds) throw std::logic_error(invariant);
  };
  demand(pending_.empty(), "every write-back is in a plan");
  demand(static_cast<std::int32_t>(free_.size()) + residents_.size() + under_way == num_pages_,
         "a host page is free, written by a transfer, or holds a block");
}

}  // namespace ts
