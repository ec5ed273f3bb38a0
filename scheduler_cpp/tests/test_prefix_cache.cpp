// SPDX-License-Identifier: MIT
#include "router_view.h"
#include "spec.h"
#include "ts/page_pool.h"
#include "ts/prefix_cache.h"

using namespace ts;

namespace {

constexpr std::int32_t kPageSize = 2;

struct Store {
  explicit Store(std::int32_t pages = 8, ContentHash hash_mask = ~ContentHash{0})
      : cache(pages, kPageSize, salts, events, hash_mask), pool(pages, cache) {}

  // Stores the whole pages of `tokens` as a sequence would and lets go of them; pages cached.
  std::int32_t store(const std::vector<Token>& tokens, std::string_view salt_bytes = "") {
    const SaltRef salt = salts.intern(salt_bytes);
    std::vector<SharedPage> pages;
    for (std::size_t at = 0; at + kPageSize <= tokens.size(); at += kPageSize) {
      auto inserted = cache.insert(salt, pages.empty() ? nullptr : &pages.back(),
                                   std::span(tokens).subspan(at, kPageSize), pool.take());
      if (inserted.unused) pool.give_back(std::move(*inserted.unused));
      if (!inserted.page) break;
      pages.push_back(std::move(*inserted.page));
    }
    const auto count = static_cast<std::int32_t>(pages.size());
    for (; !pages.empty(); pages.pop_back()) cache.release(std::move(pages.back()));
    cache.check();
    return count;
  }

  std::size_t matched(const std::vector<Token>& tokens, std::string_view salt_bytes = "") {
    const SaltRef salt = salts.intern(salt_bytes);
    PrefixMatch match;
    cache.match(salt, tokens, static_cast<std::int32_t>(tokens.size()) / kPageSize, match);
    return match.pages.size();
  }

  void evict() {
    pool.give_back(cache.evict());
    cache.check();
  }

  SaltTable salts;
  KvEventLog events{true, kPageSize, 0};
  PrefixCache cache;
  PagePool pool;
};

}  // namespace

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
  const SaltRef salt = store.salts.intern("");
  PrefixMatch match;
  store.cache.match(salt, std::vector<Token>{1, 2}, 1, match);
  EXPECT(match.evictable == 1);
  SharedPage page = store.cache.acquire(match.pages[0]);
  EXPECT(store.cache.evictable() == 0);
  store.cache.match(salt, std::vector<Token>{1, 2}, 1, match);
  EXPECT(match.evictable == 0);
  store.cache.release(std::move(page));
  EXPECT(store.cache.evictable() == 1);
}

SPEC("a salt is forgotten with its last page") {
  Store store;
  store.store({1, 2, 3, 4}, "tenant");
  EXPECT(store.salts.size() == 1);
  store.evict();
  store.evict();
  EXPECT(store.salts.size() == 0);
}
