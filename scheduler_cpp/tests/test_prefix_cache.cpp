// SPDX-License-Identifier: MIT
#include <deque>
#include <numeric>

#include "router_view.h"
#include "spec.h"
#include "ts/page_pool.h"
#include "ts/prefix_cache.h"

using namespace ts;

namespace {

// Whoever asks has these tokens in its prompt.
const Forms kPrompt(1 << 20, 1 << 20);

constexpr std::int32_t kPageSize = 2;

struct Store {
  explicit Store(std::int32_t pages = 8, ContentHash hash_mask = ~ContentHash{0})
      : Store({.num_pages = pages, .page_size = kPageSize, .groups = {}, .hash_mask = hash_mask}) {}
  explicit Store(const PrefixCacheConfig& config)
      : cache(config, salts, events), pool(config.num_pages, cache) {
    for (std::size_t i = 0; i < config.groups.size(); ++i) {
      group_pools.emplace_back(config.groups[i].num_pages, cache, i + 1);
    }
  }

  // Stores the whole pages of `tokens` as a sequence would and lets go of them; pages cached.
  std::int32_t store(const std::vector<Token>& tokens, std::string_view salt_bytes = "") {
    const SaltRef salt = salts.intern(salt_bytes);
    std::vector<SharedPage> pages;
    for (std::size_t at = 0; at + kPageSize <= tokens.size(); at += kPageSize) {
      const SharedPage* parent = pages.empty() ? nullptr : &pages.back();
      const auto content = std::span(tokens).subspan(at, kPageSize);
      const BlockId behind = parent == nullptr ? kNoBlock : cache.block(*parent);
      auto inserted = cache.insert(cache.blocks().chained_hash(salt, behind, content), salt, parent,
                                   content, kPageSize, pool.take());
      if (inserted.unused) pool.give_back(std::move(*inserted.unused));
      if (!inserted.page) break;
      pages.push_back(std::move(*inserted.page));
    }
    const auto count = static_cast<std::int32_t>(pages.size());
    for (; !pages.empty(); pages.pop_back()) cache.release(kFullAttention, std::move(pages.back()));
    cache.check();
    return count;
  }

  std::size_t matched(const std::vector<Token>& tokens, std::string_view salt_bytes = "",
                      const Forms& forms = kPrompt) {
    return match(tokens, salt_bytes, forms).blocks.size();
  }
  PrefixMatch match(const std::vector<Token>& tokens, std::string_view salt_bytes = "",
                    const Forms& forms = kPrompt) {
    const SaltRef salt = salts.intern(salt_bytes);
    PrefixMatch match;
    cache.match(salt, tokens, names(tokens, salt_bytes), forms, match);
    return match;
  }
  std::vector<ContentHash> names(const std::vector<Token>& tokens,
                                 std::string_view salt_bytes = "") {
    std::vector<ContentHash> names;
    cache.name_pages(salts.intern(salt_bytes), tokens, names);
    return names;
  }

  // Evicts everything from the device; what the host takes arrives there, or gets lost.
  void evict_all(bool ok = true) {
    while (cache.evictable() > 0) pool.give_back(cache.evict(kFullAttention));
    cache.host().written(cache.host().take_write_backs(), ok);
    cache.check();
  }

  // Attaches pages of a further group to these columns of `tokens`.
  void attach(std::size_t group, const std::vector<Token>& tokens,
              const std::vector<std::size_t>& columns) {
    const SaltRef salt = salts.intern("");
    std::vector<BlockId> blocks;
    BlockId parent = kNoBlock;
    for (std::size_t at = 0; at + kPageSize <= tokens.size(); at += kPageSize) {
      const auto content = std::span(tokens).subspan(at, kPageSize);
      parent = cache.blocks().find(cache.blocks().chained_hash(salt, parent, content), parent,
                                   salt.id(), content);
      blocks.push_back(parent);
    }
    for (const std::size_t column : columns) {
      auto attached = cache.attach(group, blocks[column], group_pools[group - 1].take());
      if (attached.page) cache.release(group, std::move(*attached.page));
      if (attached.unused) group_pools[group - 1].give_back(std::move(*attached.unused));
    }
    cache.check();
  }

  void evict() {
    pool.give_back(cache.evict(kFullAttention));
    cache.check();
  }

  SaltTable salts;
  KvEventLog events{true, kPageSize, 0};
  PrefixCache cache;
  PagePool pool;
  std::deque<PagePool> group_pools;
};

std::vector<Token> some_tokens(std::int32_t count) {
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), 1);
  return tokens;
}

constexpr ContentHash kWhole = ~ContentHash{0};

PrefixCacheConfig with_host(std::int32_t pages, ContentHash hash_mask = kWhole) {
  return {.num_pages = 8,
          .page_size = kPageSize,
          .groups = {},
          .num_host_pages = pages,
          .hash_mask = hash_mask};
}

}  // namespace

SPEC("what a sequence generated matches pages of its form only, its prompt any") {
  Store store;
  store.store({1, 2, 3, 4, 5, 6});  // all expanded
  const auto with_prompt = [&](std::int32_t length) {
    return store.matched({1, 2, 3, 4, 5, 6}, "", Forms(length, 1 << 20));
  };
  EXPECT(with_prompt(2) == 1);
  EXPECT(with_prompt(3) == 1);  // the second page would be expanded in its first token only
  EXPECT(with_prompt(4) == 2);
  EXPECT(store.matched({1, 2, 3, 4, 5, 6}, "", Forms(6, 0)) == 3);
}

SPEC("a store that is under way brings nothing of what was withdrawn to the host tier") {
  Store store(with_host(4));
  store.store({1, 2, 3, 4});
  store.evict();  // the second page is on its way to the host
  auto stores = store.cache.host().take_write_backs();
  EXPECT(stores.size() == 1);
  const SaltRef salt = store.salts.intern("");
  const std::vector<Token> content{1, 2};
  const ContentHash hash = store.cache.blocks().chained_hash(salt, kNoBlock, content);
  SharedPage first = store.cache.acquire(
      kFullAttention, store.cache.blocks().find(hash, kNoBlock, salt.id(), content));
  EXPECT(store.cache.withdraw(first.id()).empty());
  auto free = store.cache.release(kFullAttention, std::move(first));
  EXPECT(free.has_value());
  store.pool.give_back(std::move(*free));

  store.cache.host().written(std::move(stores), true);

  EXPECT(store.cache.host().pages_held() == 0);
  store.cache.check();
}

SPEC("a prefix matches in whole pages") {
  Store store;
  store.store({1, 2, 3, 4, 5, 6});
  EXPECT(store.matched({1, 2, 3, 4, 5, 6}) == 3);
  EXPECT(store.matched({1, 2, 3, 4, 5, 7}) == 2);
  EXPECT(store.matched({1, 2, 3, 9, 5, 6}) == 1);
  EXPECT(store.matched({9, 2, 3, 4, 5, 6}) == 0);
}

SPEC("a page matches behind its own prefix only") {
  Store store;
  store.store({1, 2, 3, 4});
  store.store({5, 6});
  EXPECT(store.matched({3, 4}) == 0);
  EXPECT(store.matched({5, 6, 3, 4}) == 1);
}

SPEC("a page matches under its own salt only") {
  Store store;
  store.store({1, 2, 3, 4}, "a");
  EXPECT(store.matched({1, 2, 3, 4}, "a") == 2);
  EXPECT(store.matched({1, 2, 3, 4}, "b") == 0);
  EXPECT(store.matched({1, 2, 3, 4}) == 0);
}

SPEC("a hash collision never serves other tokens, and is not cached") {
  Store store(8, 0);  // every page has hash 0
  EXPECT(store.store({1, 2, 3, 4}) == 1);
  EXPECT(store.store({5, 6}) == 0);
  EXPECT(store.matched({1, 2}) == 1);
  EXPECT(store.matched({5, 6}) == 0);
  EXPECT(store.matched({1, 2, 3, 4}) == 1);
  EXPECT(store.matched({1, 2}, "salt") == 0);
}

SPEC("content that is cached already is kept once") {
  Store store;
  store.store({1, 2, 3, 4});
  EXPECT(store.store({1, 2, 3, 4, 5, 6}) == 3);
  EXPECT(store.cache.size() == 3);
  EXPECT(store.pool.free() == 5);
}

SPEC("the least recently used page is evicted first, leaves before their parents") {
  Store store;
  store.store({1, 2, 3, 4});
  store.store({5, 6});
  store.store({1, 2, 7, 8});  // uses page (1, 2) again
  store.evict();              // (3, 4)
  EXPECT(store.matched({1, 2, 3, 4}) == 1);
  store.evict();  // (5, 6)
  EXPECT(store.matched({5, 6}) == 0);
  store.evict();  // (7, 8), before its parent
  EXPECT(store.matched({1, 2, 7, 8}) == 1);
  store.evict();
  EXPECT(store.cache.size() == 0);
}

SPEC("an evicted page is announced as removed, under its own hash") {
  Store store;
  store.store({1, 2, 3, 4});
  spec::RouterView router;
  router.apply(store.events.drain(0));
  EXPECT(router.blocks() == 2);
  store.evict();
  router.apply(store.events.drain(0));
  EXPECT(router.blocks() == 1);
  store.evict();
  router.apply(store.events.drain(0));
  EXPECT(router.blocks() == 0);
}

SPEC("a referenced page is not evictable") {
  Store store;
  store.store({1, 2});
  PrefixMatch match = store.match({1, 2});
  EXPECT(match.evictable == 1);
  SharedPage page = store.cache.acquire(kFullAttention, match.blocks[0]);
  EXPECT(store.cache.evictable() == 0);
  match = store.match({1, 2});
  EXPECT(match.evictable == 0);
  store.cache.release(kFullAttention, std::move(page));
  EXPECT(store.cache.evictable() == 1);
}

SPEC("a page's name is the same whether its prompt is named at once or as it grows") {
  Store store;
  std::vector<ContentHash> names;
  const SaltRef salt = store.salts.intern("tenant");
  for (std::int32_t length = 0; length <= 7; ++length) {
    store.cache.name_pages(salt, some_tokens(length), names);
  }
  EXPECT(names.size() == 3);
  EXPECT(names == store.names(some_tokens(7), "tenant"));
}

SPEC("a name tells at once whether a prefix is in use, and forgets what is evicted or withdrawn") {
  Store store;
  store.store({1, 2, 3, 4});
  const std::vector<ContentHash> names = store.names({1, 2, 3, 4});
  EXPECT(!store.cache.may_be_in_use(names));  // nobody refers to it
  const PrefixMatch match = store.match({1, 2, 3, 4});
  SharedPage first = store.cache.acquire(kFullAttention, match.blocks[0]);
  SharedPage second = store.cache.acquire(kFullAttention, match.blocks[1]);
  EXPECT(store.cache.may_be_in_use(names));
  EXPECT(!store.cache.may_be_in_use(store.names({1, 2, 3, 5})));
  EXPECT(store.cache.withdraw(second.id()).empty());
  EXPECT(!store.cache.may_be_in_use(names));
  EXPECT(store.cache.may_be_in_use(std::span(names).first(1)));
  auto free = store.cache.release(kFullAttention, std::move(second));
  store.pool.give_back(std::move(*free));
  store.cache.release(kFullAttention, std::move(first));
  store.evict();
  EXPECT(!store.cache.may_be_in_use(std::span(names).first(1)));
}

SPEC("a salt is forgotten with its last page") {
  Store store;
  store.store({1, 2, 3, 4}, "tenant");
  EXPECT(store.salts.size() == 1);
  store.evict();
  store.evict();
  EXPECT(store.salts.size() == 0);
}

SPEC("what the device evicts is found in the host tier") {
  Store store(with_host(8));
  store.store({1, 2, 3, 4, 5, 6});
  store.evict_all();
  EXPECT(store.cache.size() == 0);
  EXPECT(store.cache.host().pages_held() == 3);
  const PrefixMatch match = store.match({1, 2, 3, 4, 7, 8});
  EXPECT(match.pages() == 2);
  EXPECT(match.on_device == 0);
}

SPEC("a match goes on from the device into the host tier") {
  Store store(with_host(8));
  store.store({1, 2, 3, 4});
  store.evict_all();
  store.store({1, 2});
  const PrefixMatch match = store.match({1, 2, 3, 4});
  EXPECT(match.pages() == 2);
  EXPECT(match.on_device == 1);
}

SPEC("what could not be written back is lost, and nothing else") {
  Store store(with_host(8));
  store.store({1, 2, 3, 4});
  store.evict_all(false);
  EXPECT(store.matched({1, 2, 3, 4}) == 0);
  EXPECT(store.cache.host().pages_held() == 0);
  EXPECT(store.cache.blocks().size() == 0);
  store.store({1, 2});
  store.evict_all();
  EXPECT(store.matched({1, 2, 3, 4}) == 1);
}

SPEC("the host tier keeps what was used last, leaves go before their parents") {
  Store store(with_host(3));
  store.store({1, 2, 3, 4});
  store.evict_all();
  store.store({5, 6, 7, 8});
  store.evict_all();
  EXPECT(store.cache.host().pages_held() == 3);
  EXPECT(store.matched({5, 6, 7, 8}) == 2);
  EXPECT(store.matched({1, 2, 3, 4}) == 1);
}

SPEC("a block without a page of its own stands between two that have one") {
  Store store(with_host(8));
  store.store({1, 2, 3, 4});
  store.evict();  // (3, 4)
  store.cache.host().written(store.cache.host().take_write_backs(), true);
  store.evict();  // (1, 2), and its write-back fails
  store.cache.host().written(store.cache.host().take_write_backs(), false);
  EXPECT(store.matched({1, 2, 3, 4}) == 0);
  EXPECT(store.cache.blocks().size() == 2);
  store.store({1, 2});
  EXPECT(store.matched({1, 2, 3, 4}) == 2);  // what was in the host is within reach again
}

SPEC("a page that the host tier holds is not written back again") {
  Store store(with_host(8));
  store.store({1, 2});
  store.evict_all();
  store.store({1, 2});
  store.pool.give_back(store.cache.evict(kFullAttention));
  EXPECT(store.cache.host().take_write_backs().empty());
}

SPEC("clearing forgets what is still on its way to the host tier") {
  Store store(with_host(8));
  store.store({1, 2});
  store.pool.give_back(store.cache.evict(kFullAttention));
  auto under_way = store.cache.host().take_write_backs();
  store.cache.host().clear();
  store.cache.host().written(std::move(under_way), true);
  EXPECT(store.matched({1, 2}) == 0);
  EXPECT(store.cache.blocks().size() == 0);
}

SPEC("a sliding window needs its last pages only") {
  Store store(
      {.num_pages = 8, .page_size = kPageSize, .groups = {{CacheGroupKind::kSlidingWindow, 8, 3}}});
  const std::vector<Token> tokens{1, 2, 3, 4, 5, 6, 7, 8};
  store.store(tokens);
  EXPECT(store.matched(tokens) == 0);
  store.attach(1, tokens, {3});
  EXPECT(store.matched(tokens) == 4);  // position 8 reads 6, 7 and itself: column 3
  EXPECT(store.matched({1, 2, 3, 4, 5, 6}) == 0);
}

SPEC("a recurrent group continues from a snapshot at the prefix's end") {
  Store store(
      {.num_pages = 8, .page_size = kPageSize, .groups = {{CacheGroupKind::kRecurrent, 8, 0}}});
  const std::vector<Token> tokens{1, 2, 3, 4, 5, 6, 7, 8};
  store.store(tokens);
  store.attach(1, tokens, {1});
  EXPECT(store.matched(tokens) == 2);
}

SPEC("a joint match is what every group can continue from") {
  Store store(
      {.num_pages = 8,
       .page_size = kPageSize,
       .groups = {{CacheGroupKind::kSlidingWindow, 8, 5}, {CacheGroupKind::kRecurrent, 8, 0}}});
  const std::vector<Token> tokens{1, 2, 3, 4, 5, 6, 7, 8};
  store.store(tokens);
  store.attach(1, tokens, {0, 1, 2, 3});
  store.attach(2, tokens, {0, 2});
  EXPECT(store.matched(tokens) == 3);
  store.group_pools[0].give_back(store.cache.evict(1));  // the window's page of column 0
  EXPECT(store.matched(tokens) == 3);                    // position 6 reads from 2 on
  store.group_pools[0].give_back(store.cache.evict(1));  // column 1
  EXPECT(store.matched(tokens) == 0);
}

SPEC("further groups' pages are free when their content leaves full attention") {
  Store store(
      {.num_pages = 8, .page_size = kPageSize, .groups = {{CacheGroupKind::kRecurrent, 4, 0}}});
  store.store({1, 2});
  store.attach(1, {1, 2}, {0});
  EXPECT(store.group_pools[0].free() == 3);
  store.evict();
  EXPECT(store.group_pools[0].free() == 4);
  EXPECT(store.cache.blocks().size() == 0);
}
