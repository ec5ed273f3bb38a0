// SPDX-License-Identifier: MIT
// A page in the prefix cache is no longer writable: its lease was consumed.
// expected-error: cannot bind rvalue reference of type .*ts::PageLease&&.* to lvalue of type .*ts::PageLease
#include "ts/prefix_cache.h"

ts::PageId still_writable(ts::PrefixCache& cache, const ts::SaltRef& salt,
                          std::span<const ts::Token> tokens, ts::PageLease lease) {
  const ts::ContentHash hash = cache.blocks().chained_hash(salt, ts::kNoBlock, tokens);
  auto inserted = cache.insert(hash, salt, nullptr, tokens, 0, lease);
  cache.release(ts::kFullAttention, std::move(*inserted.page));
  return ts::write_target(lease);
}
