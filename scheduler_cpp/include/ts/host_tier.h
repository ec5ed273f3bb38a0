// SPDX-License-Identifier: MIT
// The tier behind the device: what the device's prefix cache evicts is written back to host pages,
// and what a prompt matches there is loaded again.
//
// A host page is leased while a transfer writes it, then holds its block until it is evicted, least
// recently used first. A page that a load reads is pinned.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "ts/block_index.h"
#include "ts/check.h"
#include "ts/kv_events.h"
#include "ts/residents.h"
#include "ts/types.h"

namespace ts {

// The exclusive right to write a host page; same discipline as PageLease.
class [[nodiscard]] HostPageLease {
 public:
  HostPageLease(HostPageLease&& other) noexcept : id_(std::exchange(other.id_, kNoPage)) {}
  HostPageLease& operator=(HostPageLease&& other) noexcept {
    TS_ASSERT(id_ == kNoPage);
    id_ = std::exchange(other.id_, kNoPage);
    return *this;
  }
  HostPageLease(const HostPageLease&) = delete;
  HostPageLease& operator=(const HostPageLease&) = delete;
  ~HostPageLease() { TS_ASSERT(id_ == kNoPage); }

  [[nodiscard]] PageId id() const { return id_; }

 private:
  friend class HostTier;
  explicit HostPageLease(PageId id) : id_(id) {}
  PageId id_;
};

// A block on its way from a device page to a host page.
struct WriteBack {
  BlockId block;
  PageId device_page;
  HostPageLease host_page;
  std::uint64_t era;  // of the cache's content: clearing begins a new one
};

class HostTier {
 public:
  HostTier(std::int32_t num_pages, BlockIndex& blocks, KvEventLog& events);

  [[nodiscard]] bool enabled() const { return num_pages_ > 0; }
  [[nodiscard]] bool has(BlockId block) const { return enabled() && residents_.has(block); }
  [[nodiscard]] PageId page(BlockId block) const { return residents_.page(block); }

  // The device evicts this block's page: it is written back unless the host holds it already, or
  // every host page is in use.
  void evicted(BlockId block, PageId device_page);

  // The write-backs that no plan names yet, from the `first` on; it carries them out before
  // anybody writes where they read.
  [[nodiscard]] std::vector<WriteBack> take_write_backs(std::size_t first = 0);
  [[nodiscard]] std::size_t pending() const { return pending_.size(); }
  // The transfer of these has ended. Unless it failed, the host holds the blocks from now on.
  void written(std::vector<WriteBack>&& done, bool ok);

  // A load reads the block's page.
  void pin(BlockId block) { residents_.acquire(block); }
  void unpin(BlockId block);
  // Blocks that nobody shall find any more: their pages are free, once no load reads them.
  void withdraw(const std::vector<BlockId>& blocks);

  // Precondition: nothing is pinned.
  void clear();

  [[nodiscard]] std::int32_t pages_held() const { return residents_.size(); }

  // Throws std::logic_error naming the first violated invariant, for tests. `under_way`: host pages
  // that transfers write.
  void check(std::int32_t under_way) const;

 private:
  [[nodiscard]] std::optional<HostPageLease> take();
  void give_back(HostPageLease&& lease) { free_.push_back(std::exchange(lease.id_, kNoPage)); }
  [[nodiscard]] PageId evict();
  void leave(BlockId block);

  std::int32_t num_pages_;
  BlockIndex& blocks_;
  KvEventLog& events_;
  Residents residents_;
  std::vector<PageId> free_;
  std::vector<WriteBack> pending_;
  std::uint64_t era_ = 0;
};

}  // namespace ts
