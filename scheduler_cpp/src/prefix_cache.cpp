// SPDX-License-Identifier: MIT
#include "ts/prefix_cache.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

namespace ts {

PrefixCache::PrefixCache(std::int32_t num_pages, std::int32_t page_size, SaltTable& salts,
                         KvEventLog& events, ContentHash hash_mask)
    : page_size_(page_size),
      salts_(salts),
      events_(events),
      hash_mask_(hash_mask),
      bucket_mask_(std::bit_ceil(static_cast<std::uint64_t>(num_pages) * 2) - 1),
      nodes_(static_cast<std::size_t>(num_pages)),
      buckets_(bucket_mask_ + 1, kNoPage),
      tokens_(static_cast<std::size_t>(num_pages) * static_cast<std::size_t>(page_size)) {}

std::span<const Token> PrefixCache::tokens_of(PageId page) const {
  const auto size = static_cast<std::size_t>(page_size_);
  return {tokens_.data() + static_cast<std::size_t>(page) * size, size};
}

PageId PrefixCache::find(ContentHash hash, PageId parent, SaltId salt,
                         std::span<const Token> tokens) const {
  for (PageId page = buckets_[hash & bucket_mask_]; page != kNoPage;
       page = node(page).next_in_bucket) {
    const Node& candidate = node(page);
    if (candidate.hash == hash && candidate.parent == parent && candidate.salt == salt &&
        std::ranges::equal(tokens_of(page), tokens)) {
      return page;
    }
  }
  return kNoPage;
}

bool PrefixCache::occupied(ContentHash hash) const {
  for (PageId page = buckets_[hash & bucket_mask_]; page != kNoPage;
       page = node(page).next_in_bucket) {
    if (node(page).hash == hash) return true;
  }
  return false;
}

void PrefixCache::match(const SaltRef& salt, std::span<const Token> tokens, std::int32_t max_pages,
                        PrefixMatch& found) const {
  found.pages.clear();
  found.evictable = 0;
  const auto size = static_cast<std::size_t>(page_size_);
  ContentHash hash = salt.root_hash();
  PageId parent = kNoPage;
  for (std::int32_t i = 0; i < max_pages; ++i) {
    const auto page_tokens = tokens.subspan(static_cast<std::size_t>(i) * size, size);
    hash = hash_page(hash, page_tokens) & hash_mask_;
    const PageId page = find(hash, parent, salt.id(), page_tokens);
    if (page == kNoPage) return;
    found.pages.push_back(page);
    found.evictable += node(page).references == 0 ? 1 : 0;
    parent = page;
  }
}

SharedPage PrefixCache::acquire(PageId page) {
  TS_ASSERT(holds(page));
  if (node(page).references++ == 0) unlink_unreferenced(page);
  return SharedPage(page);
}

PrefixCache::Inserted PrefixCache::insert(const SaltRef& salt, const SharedPage* parent,
                                          std::span<const Token> tokens, PageLease&& lease) {
  TS_ASSERT(tokens.size() == static_cast<std::size_t>(page_size_));
  const PageId parent_page = parent == nullptr ? kNoPage : parent->id();
  const ContentHash parent_hash = parent == nullptr ? salt.root_hash() : node(parent_page).hash;
  const ContentHash hash = hash_page(parent_hash, tokens) & hash_mask_;
  const PageId twin = find(hash, parent_page, salt.id(), tokens);
  if (twin != kNoPage) return {acquire(twin), std::move(lease)};
  // A second page under one hash would be one block to a router, so it is not cached.
  if (occupied(hash)) return {std::nullopt, std::move(lease)};

  const PageId page = lease.consume();
  Node& entry = node(page);
  TS_ASSERT(entry.references == kNotCached);
  entry = {.hash = hash,
           .parent = parent_page,
           .next_in_bucket = bucket(hash),
           .salt = salt.id(),
           .references = 1};
  bucket(hash) = page;
  std::ranges::copy(tokens, tokens_.begin() + static_cast<std::ptrdiff_t>(page) * page_size_);
  if (parent == nullptr) salts_.retain(salt.id());
  ++size_;
  events_.stored(hash, parent == nullptr ? std::nullopt : std::optional(parent_hash), tokens,
                 salt.bytes());
  return {SharedPage(page), std::nullopt};
}

bool PrefixCache::takes_unreferenced(const SaltRef& salt, const SharedPage* parent,
                                     std::span<const Token> tokens) const {
  const PageId behind = parent == nullptr ? kNoPage : parent->id();
  const PageId twin = find(chained_hash(salt, behind, tokens), behind, salt.id(), tokens);
  return twin != kNoPage && node(twin).references == 0;
}

void PrefixCache::release(SharedPage&& shared) {
  const PageId page = shared.consume();
  TS_ASSERT(node(page).references > 0);
  if (--node(page).references == 0) append_unreferenced(page);
}

PageLease PrefixCache::evict() {
  const PageId page = oldest_;
  const ContentHash hash = node(page).hash;
  events_.removed(hash, salts_.entries_[node(page).salt].bytes);
  return forget();
}

PageLease PrefixCache::forget() {
  return PageLease(remove_oldest());
}

PageId PrefixCache::remove_oldest() {
  TS_ASSERT(oldest_ != kNoPage);
  const PageId page = oldest_;
  unlink_unreferenced(page);
  PageId* link = &bucket(node(page).hash);
  while (*link != page) link = &node(*link).next_in_bucket;
  *link = node(page).next_in_bucket;
  if (node(page).parent == kNoPage) salts_.drop(node(page).salt);
  node(page) = Node{};
  --size_;
  return page;
}

void PrefixCache::append_unreferenced(PageId page) {
  Node& entry = node(page);
  entry.older = newest_;
  entry.newer = kNoPage;
  (newest_ == kNoPage ? oldest_ : node(newest_).newer) = page;
  newest_ = page;
  ++evictable_;
}

void PrefixCache::unlink_unreferenced(PageId page) {
  Node& entry = node(page);
  (entry.older == kNoPage ? oldest_ : node(entry.older).newer) = entry.newer;
  (entry.newer == kNoPage ? newest_ : node(entry.newer).older) = entry.older;
  entry.older = entry.newer = kNoPage;
  --evictable_;
}

void PrefixCache::check() const {
  const auto demand = [](bool holds, const char* invariant) {
    if (!holds) throw std::logic_error(std::string("prefix cache: ") + invariant);
  };
  std::vector<std::int32_t> place(nodes_.size(), -1);  // in the list of unreferenced pages
  std::int32_t listed = 0;
  for (PageId page = oldest_; page != kNoPage; page = node(page).newer) {
    demand(node(page).references == 0, "a page waiting for eviction is unreferenced");
    place[static_cast<std::size_t>(page)] = listed++;
    demand(listed <= evictable_, "the list of unreferenced pages ends");
  }
  demand(listed == evictable_, "every unreferenced page is counted");
  std::int32_t cached = 0;
  for (PageId page = 0; page < static_cast<PageId>(nodes_.size()); ++page) {
    const Node& entry = node(page);
    if (entry.references == kNotCached) continue;
    ++cached;
    demand((entry.references == 0) == (place[static_cast<std::size_t>(page)] >= 0),
           "a page is unreferenced exactly if it waits for eviction");
    demand(find(entry.hash, entry.parent, entry.salt, tokens_of(page)) == page,
           "a cached page is found by its content");
    if (entry.parent == kNoPage) continue;
    demand(holds(entry.parent), "a cached page's parent is cached");
    demand(entry.references == 0 || node(entry.parent).references > 0,
           "a referenced page's parent is referenced");
    if (node(entry.parent).references == 0) {
      demand(place[static_cast<std::size_t>(entry.parent)] > place[static_cast<std::size_t>(page)],
             "a page is evicted before its parent");
    }
  }
  demand(cached == size_, "every cached page is counted");
}

}  // namespace ts
