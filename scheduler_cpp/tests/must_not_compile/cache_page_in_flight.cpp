// SPDX-License-Identifier: MIT
// A page enters the prefix cache when its KV is computed, not while a step still writes it.
// expected-error: cannot convert .*ts::InFlight<ts::PageLease>.* to .*ts::PageLease&&
#include "ts/in_flight.h"
#include "ts/prefix_cache.h"

void early(ts::PrefixCache& cache, const ts::SaltRef& salt, std::span<const ts::Token> tokens,
           ts::InFlight<ts::PageLease> page) {
  const ts::ContentHash hash = cache.blocks().chained_hash(salt, ts::kNoBlock, tokens);
  auto inserted = cache.insert(hash, salt, nullptr, tokens, 0, std::move(page));
}
