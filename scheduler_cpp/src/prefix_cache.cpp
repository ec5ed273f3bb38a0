// SPDX-License-Identifier: MIT
#include "ts/prefix_cache.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

namespace ts {
namespace {

constexpr std::int32_t kAhead = 16;  // pages whose misses overlap

}  // namespace

PrefixCache::PrefixCache(const PrefixCacheConfig& config, SaltTable& salts, KvEventLog& events)
    : page_size_(config.page_size),
      groups_(config.groups),
      events_(events),
      blocks_(config.num_pages + config.num_host_pages, config.page_size, salts, config.hash_mask),
      orphans_(config.groups.size() + 1),
      host_(config.num_host_pages, blocks_, events) {
  residents_.emplace_back(config.num_pages);
  for (const CacheGroup& group : config.groups) residents_.emplace_back(group.num_pages);
}

void PrefixCache::name_pages(const SaltRef& salt, std::span<const Token> tokens,
                             std::vector<ContentHash>& names) const {
  const auto size = static_cast<std::size_t>(page_size_);
  ContentHash name = names.empty() ? salt.root_hash() : names.back();
  for (std::size_t at = names.size() * size; at + size <= tokens.size(); at += size) {
    name = blocks_.chained_hash(name, tokens.subspan(at, size));
    names.push_back(name);
  }
}

void PrefixCache::match(const SaltRef& salt, std::span<const Token> tokens,
                        std::span<const ContentHash> names, const Forms& forms,
                        PrefixMatch& found) const {
  found.blocks.clear();
  found.on_device = 0;
  found.evictable = 0;
  const auto size = static_cast<std::size_t>(page_size_);
  const Residents& device = residents_[kFullAttention];
  std::array<std::int32_t, 8> run{};  // by further group: pages of the last blocks, without a gap
  std::int32_t whole = 0;             // blocks up to which every group can go on
  const auto max_pages = static_cast<std::int32_t>(names.size());
  BlockId parent = kNoBlock;
  for (std::int32_t i = 0; i < max_pages; ++i) {
    if (i % kAhead == 0) {
      const auto next = names.subspan(static_cast<std::size_t>(i),
                                      static_cast<std::size_t>(std::min(kAhead, max_pages - i)));
      prefetch(next);
      for (const ContentHash name : next) {
        const BlockId block = blocks_.prefetch_block(name);
        if (block != kNoBlock) device.prefetch(block);
      }
    }
    const auto page_tokens = tokens.subspan(static_cast<std::size_t>(i) * size, size);
    const BlockId block =
        blocks_.find(names[static_cast<std::size_t>(i)], parent, salt.id(), page_tokens);
    if (block == kNoBlock || !forms.accept(i, page_size_, blocks_.expanded(block))) break;
    if (found.on_device == i && device.has(block)) {
      ++found.on_device;
      found.evictable += device.references(block) == 0 ? 1 : 0;
    } else if (!host_.has(block)) {
      break;
    }
    found.blocks.push_back(block);
    parent = block;
    bool complete = true;
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      run[group] = residents_[group + 1].has(block) ? run[group] + 1 : 0;
      const std::int32_t first = groups_[group].first_column((i + 1) * page_size_, page_size_);
      complete &= run[group] >= i + 1 - first;
    }
    if (complete) whole = i + 1;
  }
  while (found.pages() > whole) {  // only with further groups, which exclude a host tier
    found.evictable -= device.references(found.blocks.back()) == 0 ? 1 : 0;
    found.blocks.pop_back();
    --found.on_device;
  }
}

SharedPage PrefixCache::acquire(std::size_t group, BlockId block) {
  TS_ASSERT(residents_[group].has(block));
  residents_[group].acquire(block);
  return SharedPage(residents_[group].page(block));
}

PrefixCache::Inserted PrefixCache::insert(ContentHash hash, const SaltRef& salt,
                                          const SharedPage* parent, std::span<const Token> tokens,
                                          std::int32_t expanded, PageLease&& lease) {
  Residents& device = residents_[kFullAttention];
  const BlockId behind = parent_block(parent);
  TS_ASSERT(hash == blocks_.chained_hash(salt, behind, tokens));
  BlockId block = blocks_.named(hash);
  if (block == kNoBlock) {
    block = blocks_.add(hash, behind, salt, tokens, expanded);
  } else if (!blocks_.is(block, behind, salt.id(), tokens) || blocks_.expanded(block) != expanded) {
    // A second page under one hash would be one block to a router, so it is not cached.
    return {std::nullopt, std::move(lease)};
  } else if (device.has(block)) {
    return {acquire(kFullAttention, block), std::move(lease)};
  }
  blocks_.hold(block);
  device.settle(block, lease.id());
  events_.stored(hash, parent == nullptr ? std::nullopt : std::optional(blocks_.hash(behind)),
                 tokens, salt.bytes());
  return {SharedPage(lease.consume()), std::nullopt};
}

bool PrefixCache::takes_unreferenced(ContentHash hash, const SaltRef& salt,
                                     const SharedPage* parent, std::span<const Token> tokens,
                                     std::int32_t expanded) const {
  const Residents& device = residents_[kFullAttention];
  const BlockId twin = blocks_.find(hash, parent_block(parent), salt.id(), tokens);
  return twin != kNoBlock && blocks_.expanded(twin) == expanded && device.has(twin) &&
         device.references(twin) == 0;
}

PrefixCache::Inserted PrefixCache::attach(std::size_t group, BlockId block, PageLease&& lease) {
  if (residents_[group].has(block)) return {std::nullopt, std::move(lease)};
  blocks_.hold(block);
  residents_[group].settle(block, lease.id());
  return {SharedPage(lease.consume()), std::nullopt};
}

std::optional<PageLease> PrefixCache::release(std::size_t group, SharedPage&& shared) {
  Residents& residents = residents_[group];
  const BlockId block = residents.block(shared.consume());
  residents.release(block);
  if (group != kFullAttention || !blocks_.withdrawn(block) || residents.references(block) > 0) {
    return std::nullopt;
  }
  return leave(block);
}

bool PrefixCache::prove(PageId page) {
  Residents& device = residents_[kFullAttention];
  const BlockId block = device.block(page);
  if (device.proven(block)) return false;
  device.prove(block);
  return true;
}

std::vector<PageLease> PrefixCache::withdraw(PageId first) {
  Residents& device = residents_[kFullAttention];
  const std::vector<BlockId> blocks = blocks_.withdraw(device.block(first));
  std::vector<PageId> pages;
  for (const BlockId block : blocks) {
    if (device.has(block)) pages.push_back(device.page(block));
  }
  std::ranges::sort(pages);
  for (const PageId page : pages) {
    const BlockId block = device.block(page);
    events_.removed(blocks_.hash(block), blocks_.salt(block));
  }
  std::vector<PageLease> free;
  // A page stands behind what continues it, so it leaves after that.
  for (BlockId block = device.oldest(); block != kNoBlock;) {
    const BlockId next = device.newer(block);
    if (blocks_.withdrawn(block)) free.push_back(leave(block));
    block = next;
  }
  host_.withdraw(blocks);
  return free;
}

PageLease PrefixCache::evict(std::size_t group) {
  Residents& residents = residents_[group];
  const BlockId block = residents.oldest();
  if (group != kFullAttention) {
    PageLease page(residents.leave(block));
    blocks_.let_go(block);
    return page;
  }
  events_.removed(blocks_.hash(block), blocks_.salt(block));
  host_.evicted(block, residents.page(block));
  return leave(block);
}

PageLease PrefixCache::take_orphan(std::size_t group) {
  const PageId page = orphans_[group].back();
  orphans_[group].pop_back();
  return PageLease(page);
}

PageLease PrefixCache::forget() {
  return leave(residents_[kFullAttention].oldest());
}

// The block's page leaves the device, and with it those of further groups, which nobody can match
// any more (who refers to one of them refers to the full-attention page too).
PageLease PrefixCache::leave(BlockId block) {
  for (std::size_t group = 1; group < residents_.size(); ++group) {
    if (!residents_[group].has(block)) continue;
    orphans_[group].push_back(residents_[group].leave(block));
    blocks_.let_go(block);
  }
  PageLease page(residents_[kFullAttention].leave(block));
  blocks_.let_go(block);
  return page;
}

void PrefixCache::announce() const {
  if (!events_.enabled()) return;
  events_.forget();
  events_.cleared();
  announce(residents_[kFullAttention], Medium::kDevice);
  if (host_.enabled()) announce(host_, Medium::kHost);
}

// From every last page up to what was told already, then down again: a chain is one event. A page
// that was withdrawn is there only for those who still read it.
template <class Tier>
void PrefixCache::announce(const Tier& tier, Medium medium) const {
  const auto end = static_cast<BlockId>(blocks_.capacity());
  const auto at = [](BlockId block) { return static_cast<std::size_t>(block); };
  const auto is_cached = [&](BlockId block) {
    return tier.has(block) && !blocks_.withdrawn(block);
  };
  std::vector<bool> continued(blocks_.capacity(), false);
  std::vector<bool> told(blocks_.capacity(), false);
  for (BlockId block = 0; block < end; ++block) {
    if (!is_cached(block)) continue;
    const BlockId parent = blocks_.parent(block);
    if (parent != kNoBlock) continued[at(parent)] = true;
  }
  std::vector<BlockId> chain;
  for (BlockId last = 0; last < end; ++last) {
    if (!is_cached(last) || continued[at(last)]) continue;
    for (BlockId block = last; block != kNoBlock && !told[at(block)];
         block = blocks_.parent(block)) {
      told[at(block)] = true;
      if (is_cached(block)) chain.push_back(block);
    }
    for (; !chain.empty(); chain.pop_back()) {
      const BlockId block = chain.back();
      const BlockId parent = blocks_.parent(block);
      events_.stored(blocks_.hash(block),
                     parent == kNoBlock ? std::nullopt : std::optional(blocks_.hash(parent)),
                     blocks_.tokens(block), blocks_.salt(block), medium);
    }
  }
}

void PrefixCache::check() const {
  const auto demand = [](bool holds, const char* invariant) {
    if (!holds) throw std::logic_error(std::string("prefix cache: ") + invariant);
  };
  blocks_.check();
  for (std::size_t group = 0; group < residents_.size(); ++group) {
    const Residents& residents = residents_[group];
    std::vector<std::int32_t> place(blocks_.capacity(), -1);  // in the list of unreferenced pages
    std::int32_t listed = 0;
    for (BlockId block = residents.oldest(); block != kNoBlock; block = residents.newer(block)) {
      demand(residents.references(block) == 0, "a page waiting for eviction is unreferenced");
      demand(group != kFullAttention || !blocks_.withdrawn(block),
             "a withdrawn page goes with the last reference to it");
      place[static_cast<std::size_t>(block)] = listed++;
      demand(listed <= residents.unreferenced(), "the list of unreferenced pages ends");
    }
    demand(listed == residents.unreferenced(), "every unreferenced page is counted");
    std::int32_t resident = 0;
    for (BlockId block = 0; block < static_cast<BlockId>(blocks_.capacity()); ++block) {
      if (!residents.has(block)) continue;
      ++resident;
      demand(residents.block(residents.page(block)) == block, "a page knows its block");
      demand(blocks_.holders(block) > 0, "a page holds its block");
      const std::int32_t at = place[static_cast<std::size_t>(block)];
      demand((residents.references(block) == 0) == (at >= 0),
             "a page is unreferenced exactly if it waits for eviction");
      if (group != kFullAttention) {
        demand(has(kFullAttention, block), "a further group's page stands beside a full one");
        continue;
      }
      const BlockId parent = blocks_.parent(block);
      if (parent == kNoBlock) continue;
      demand(!residents.proven(block) || residents.proven(parent),
             "what is before a proven page is proven");
      demand(residents.has(parent), "a cached page's parent is cached");
      demand(residents.references(block) == 0 || residents.references(parent) > 0,
             "a referenced page's parent is referenced");
      if (residents.references(parent) == 0) {
        demand(place[static_cast<std::size_t>(parent)] > at, "a page is evicted before its parent");
      }
    }
    demand(resident == residents.size(), "every cached page is counted");
  }
}

}  // namespace ts
