// SPDX-License-Identifier: MIT
#include "spec.h"
#include "ts/page_pool.h"
#include "ts/prefix_cache.h"

using namespace ts;

namespace {

struct Store {
  explicit Store(std::int32_t pages)
      : cache({.num_pages = pages, .page_size = 1, .groups = {}}, salts, events),
        pool(pages, cache) {}

  void cache_page(Token token) {
    const SaltRef salt = salts.intern("");
    const std::vector<Token> content{token};
    const ContentHash hash = cache.blocks().chained_hash(salt, kNoBlock, content);
    auto inserted = cache.insert(hash, salt, nullptr, content, 0, pool.take());
    cache.release(kFullAttention, std::move(*inserted.page));
  }

  SaltTable salts;
  KvEventLog events{false, 1, 0};
  PrefixCache cache;
  PagePool pool;
};

}  // namespace

SPEC("a page taken comes back exactly once") {
  Store store(2);
  PageLease first = store.pool.take();
  PageLease second = store.pool.take();
  EXPECT(first.id() != second.id());
  EXPECT(store.pool.available() == 0);
  store.pool.give_back(std::move(first));
  store.pool.give_back(std::move(second));
  EXPECT(store.pool.free() == 2);
}

SPEC("a promised page is available to nobody else") {
  Store store(3);
  Reservation promise = store.pool.reserve(2);
  EXPECT(store.pool.available() == 1);
  PageLease page = store.pool.take(promise);
  EXPECT(promise.pages() == 1);
  EXPECT(store.pool.available() == 1);
  store.pool.give_back(std::move(promise));
  EXPECT(store.pool.available() == 2);
  store.pool.give_back(std::move(page));
}

SPEC("a free page is preferred to evicting a cached one") {
  Store store(2);
  store.cache_page(7);
  PageLease page = store.pool.take();
  EXPECT(store.cache.size() == 1);
  store.pool.give_back(std::move(page));
}

SPEC("an unreferenced cached page is available, and taken when none is free") {
  Store store(2);
  store.cache_page(7);
  EXPECT(store.pool.available() == 2);
  PageLease first = store.pool.take();
  PageLease second = store.pool.take();
  EXPECT(store.cache.size() == 0);
  store.pool.give_back(std::move(first));
  store.pool.give_back(std::move(second));
}
