// SPDX-License-Identifier: MIT
// Full, computed pages, found again by their content.
//
// A page is keyed by the hash of its tokens chained with its parent's, and a match is accepted
// only if the parent is the page matched before (or, for a first page, the salt is the same) and
// the tokens are equal. By induction the whole prefix is equal, whatever the hashes do.
//
// Unreferenced pages wait in a list, least recently used first. A sequence releases its pages
// last page first, so a page always stands behind its descendants and the head is always a leaf.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ts/content_hash.h"
#include "ts/kv_events.h"
#include "ts/page.h"
#include "ts/salt.h"
#include "ts/types.h"

namespace ts {

// Pages found by PrefixCache::match: names only, acquire() turns them into references.
struct PrefixMatch {
  std::vector<PageId> pages;
  std::int32_t evictable = 0;  // of those, referenced by nobody yet
};

class PrefixCache {
 public:
  // `hash_mask` narrows the hash so that tests can provoke collisions.
  PrefixCache(std::int32_t num_pages, std::int32_t page_size, SaltTable& salts, KvEventLog& events,
              ContentHash hash_mask = ~ContentHash{0});

  // The longest cached prefix of `tokens` in whole pages, at most `max_pages`.
  void match(const SaltRef& salt, std::span<const Token> tokens, std::int32_t max_pages,
             PrefixMatch& found) const;

  // The name of a page's content behind `parent` (kNoPage: first page), cached or not.
  [[nodiscard]] ContentHash chained_hash(const SaltRef& salt, PageId parent,
                                         std::span<const Token> tokens) const {
    return hash_page(parent == kNoPage ? salt.root_hash() : node(parent).hash, tokens) & hash_mask_;
  }

  // A reference to a page that match() named, with nothing called in between.
  [[nodiscard]] SharedPage acquire(PageId page);

  // A full page whose KV is computed enters the cache behind `parent` (null: first page).
  struct Inserted {
    std::optional<SharedPage> page;   // empty: hash collision, the page cannot be cached
    std::optional<PageLease> unused;  // set: the content was cached already, or cannot be
  };
  [[nodiscard]] Inserted insert(const SaltRef& salt, const SharedPage* parent,
                                std::span<const Token> tokens, PageLease&& lease);

  // Would insert() hand out a page that nobody refers to yet?
  [[nodiscard]] bool takes_unreferenced(const SaltRef& salt, const SharedPage* parent,
                                        std::span<const Token> tokens) const;

  void release(SharedPage&& page);

  // Takes the least recently used page out of the cache. Precondition: evictable() > 0.
  [[nodiscard]] PageLease evict();

  // Takes a page out without an event: the caller announces that everything is cleared.
  [[nodiscard]] PageLease forget();

  [[nodiscard]] std::int32_t evictable() const { return evictable_; }
  [[nodiscard]] std::int32_t size() const { return size_; }
  [[nodiscard]] std::int32_t referenced() const { return size_ - evictable_; }
  [[nodiscard]] std::int32_t references(PageId page) const { return node(page).references; }
  [[nodiscard]] bool holds(PageId page) const { return node(page).references >= 0; }
  [[nodiscard]] ContentHash hash(PageId page) const { return node(page).hash; }

  // Throws std::logic_error naming the first violated invariant; O(pages), for tests.
  void check() const;

 private:
  struct Node {
    ContentHash hash = 0;
    PageId parent = kNoPage;
    PageId next_in_bucket = kNoPage;
    PageId older = kNoPage;  // neighbours in the list of unreferenced pages
    PageId newer = kNoPage;
    SaltId salt = 0;
    std::int32_t references = kNotCached;
  };
  static constexpr std::int32_t kNotCached = -1;

  [[nodiscard]] Node& node(PageId page) { return nodes_[static_cast<std::size_t>(page)]; }
  [[nodiscard]] const Node& node(PageId page) const {
    return nodes_[static_cast<std::size_t>(page)];
  }
  [[nodiscard]] PageId& bucket(ContentHash hash) { return buckets_[hash & bucket_mask_]; }
  [[nodiscard]] std::span<const Token> tokens_of(PageId page) const;
  [[nodiscard]] PageId find(ContentHash hash, PageId parent, SaltId salt,
                            std::span<const Token> tokens) const;
  [[nodiscard]] bool occupied(ContentHash hash) const;
  void append_unreferenced(PageId page);
  void unlink_unreferenced(PageId page);
  [[nodiscard]] PageId remove_oldest();

  std::int32_t page_size_;
  SaltTable& salts_;
  KvEventLog& events_;
  ContentHash hash_mask_;
  std::uint64_t bucket_mask_;
  std::vector<Node> nodes_;
  std::vector<PageId> buckets_;
  std::vector<Token> tokens_;  // [num_pages, page_size]
  PageId oldest_ = kNoPage;
  PageId newest_ = kNoPage;
  std::int32_t size_ = 0;
  std::int32_t evictable_ = 0;
};

}  // namespace ts
