// SPDX-License-Identifier: MIT
// Full, computed pages, found again by their content (block_index.h): those of the full-attention
// group by themselves, those of further cache groups beside them, and behind them the host tier.
//
// Unreferenced pages wait in a list, least recently used first. A sequence releases its pages
// last page first, so a page always stands behind its descendants and the head is always a leaf.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ts/block_index.h"
#include "ts/cache_group.h"
#include "ts/content_hash.h"
#include "ts/forms.h"
#include "ts/host_tier.h"
#include "ts/kv_events.h"
#include "ts/page.h"
#include "ts/residents.h"
#include "ts/salt.h"
#include "ts/types.h"

namespace ts {

// The full-attention group; further ones count from 1.
inline constexpr std::size_t kFullAttention = 0;

// What PrefixCache::match found: names only, acquire() and pin() turn them into references.
struct PrefixMatch {
  std::vector<BlockId> blocks;
  std::int32_t on_device = 0;  // of those, the first ones; the rest are in the host tier
  std::int32_t evictable = 0;  // device pages of those that nobody refers to yet

  [[nodiscard]] std::int32_t pages() const { return static_cast<std::int32_t>(blocks.size()); }
};

struct PrefixCacheConfig {
  std::int32_t num_pages = 0;
  std::int32_t page_size = 0;
  std::vector<CacheGroup> groups = {};      // beside full attention
  std::int32_t num_host_pages = 0;          // of the host tier; 0: there is none
  ContentHash hash_mask = ~ContentHash{0};  // narrows the hash: tests provoke collisions
};

class PrefixCache {
 public:
  PrefixCache(const PrefixCacheConfig& config, SaltTable& salts, KvEventLog& events);

  // Appends what is missing to the names of the full pages of `tokens`, cached or not: each the
  // hash of the page's content chained with those before it.
  void name_pages(const SaltRef& salt, std::span<const Token> tokens,
                  std::vector<ContentHash>& names) const;

  // The longest prefix of `tokens` in whole pages, at most as many as have `names`, with which a
  // sequence can go on: every group has what computing the next token reads, and `forms` accepts
  // every page.
  void match(const SaltRef& salt, std::span<const Token> tokens, std::span<const ContentHash> names,
             const Forms& forms, PrefixMatch& found) const;

  // Could a match of these names, their last page included, consist of device pages that somebody
  // refers to? By the name of that page alone, since what is before it is then there as well: no is
  // certain, yes is not, as no tokens are compared. O(1).
  [[nodiscard]] bool may_be_in_use(std::span<const ContentHash> names) const {
    const BlockId block = blocks_.named(names.back());
    const Residents& device = residents_[kFullAttention];
    return block != kNoBlock && device.has(block) && device.references(block) > 0;
  }

  // Pages of these names are about to be inserted.
  void prefetch(std::span<const ContentHash> names) const {
    for (const ContentHash name : names) blocks_.prefetch_bucket(name);
  }
  [[nodiscard]] BlockId block(const SharedPage& page) const {
    return residents_[kFullAttention].block(page.id());
  }
  [[nodiscard]] bool has(std::size_t group, BlockId block) const {
    return residents_[group].has(block);
  }

  // A reference to a block's page in a group, as match() named it, with nothing called in between.
  [[nodiscard]] SharedPage acquire(std::size_t group, BlockId block);

  // A full page whose KV is computed enters the cache behind `parent` (null: first page); `hash` is
  // its name, `expanded` how it was computed.
  struct Inserted {
    std::optional<SharedPage> page;   // empty: it cannot be cached: another content has its hash,
                                      // or the same content is known as computed otherwise
    std::optional<PageLease> unused;  // set: the content was cached already, or cannot be
  };
  [[nodiscard]] Inserted insert(ContentHash hash, const SaltRef& salt, const SharedPage* parent,
                                std::span<const Token> tokens, std::int32_t expanded,
                                PageLease&& lease);

  // Would insert() hand out a page that nobody refers to yet?
  [[nodiscard]] bool takes_unreferenced(ContentHash hash, const SaltRef& salt,
                                        const SharedPage* parent, std::span<const Token> tokens,
                                        std::int32_t expanded) const;

  // A further group's page of the same content. `unused` is set if it has one already.
  [[nodiscard]] Inserted attach(std::size_t group, BlockId block, PageLease&& lease);

  // Returns the page if it was withdrawn and nobody refers to it any more: it is free.
  std::optional<PageLease> release(std::size_t group, SharedPage&& page);

  // A token was sampled with this page in its context, as the model computed it, and so with all
  // pages before it: none holds a NaN, since a NaN spreads to every token behind it. False if that
  // was known.
  bool prove(PageId page);
  [[nodiscard]] bool proven(PageId page) const {
    const Residents& device = residents_[kFullAttention];
    return device.proven(device.block(page));
  }
  // This page and whatever continues it, in every tier, will not be found again. Returns those that
  // nobody refers to: they are free.
  [[nodiscard]] std::vector<PageLease> withdraw(PageId first);
  [[nodiscard]] bool withdrawn(BlockId block) const { return blocks_.withdrawn(block); }

  // Takes a group's least recently used page. Precondition: evictable(group) > 0.
  [[nodiscard]] PageLease evict(std::size_t group);

  // Pages of further groups whose content left the full-attention group: free, in fact.
  [[nodiscard]] const std::vector<PageId>& orphans(std::size_t group) const {
    return orphans_[group];
  }
  [[nodiscard]] PageLease take_orphan(std::size_t group);

  // Takes a full-attention page out without an event: the caller announces that all is cleared.
  [[nodiscard]] PageLease forget();

  // Tells the events what is cached now, in place of all that they held: that nothing is, then the
  // device's pages and the host's, in each tier a page behind the ones before it. O(blocks).
  void announce() const;

  [[nodiscard]] std::int32_t evictable(std::size_t group = kFullAttention) const {
    return residents_[group].unreferenced();
  }
  [[nodiscard]] std::int32_t size() const { return residents_[kFullAttention].size(); }
  [[nodiscard]] std::int32_t references(std::size_t group, PageId page) const {
    return residents_[group].references(residents_[group].block(page));
  }
  [[nodiscard]] bool holds(std::size_t group, PageId page) const {
    return residents_[group].holds(page);
  }
  // How the block's page was computed (forms.h).
  [[nodiscard]] std::int32_t expanded(BlockId block) const { return blocks_.expanded(block); }
  [[nodiscard]] ContentHash hash(const SharedPage& page) const { return blocks_.hash(block(page)); }
  [[nodiscard]] HostTier& host() { return host_; }
  [[nodiscard]] const HostTier& host() const { return host_; }
  [[nodiscard]] const BlockIndex& blocks() const { return blocks_; }

  // Throws std::logic_error naming the first violated invariant; O(pages), for tests.
  void check() const;

 private:
  [[nodiscard]] BlockId parent_block(const SharedPage* parent) const {
    return parent == nullptr ? kNoBlock : block(*parent);
  }
  [[nodiscard]] PageLease leave(BlockId block);
  template <class Tier>
  void announce(const Tier& tier, Medium medium) const;

  std::int32_t page_size_;
  std::vector<CacheGroup> groups_;  // [group - 1]
  KvEventLog& events_;
  BlockIndex blocks_;
  std::vector<Residents> residents_;  // [group]
  std::vector<std::vector<PageId>> orphans_;
  HostTier host_;
};

}  // namespace ts
