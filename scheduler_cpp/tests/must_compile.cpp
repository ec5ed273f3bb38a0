// SPDX-License-Identifier: MIT
// The allowed counterpart of must_not_compile/: if this does not compile, those fail for nothing.
#include "ts/in_flight.h"
#include "ts/lifecycle.h"
#include "ts/prefix_cache.h"

ts::PageId write(const ts::PageLease& lease) {
  return ts::write_target(lease);
}

void life(ts::PagePool& pool, ts::PrefixCache& cache, ts::StepClock& clock, const ts::SaltRef& salt,
          std::span<const ts::Token> tokens) {
  ts::InFlight<ts::PageLease> flying(pool.take(), clock.launch());
  const ts::StepToken token = clock.retire(clock.oldest_in_flight());
  const ts::ContentHash hash = cache.blocks().chained_hash(salt, ts::kNoBlock, tokens);
  auto inserted = cache.insert(hash, salt, nullptr, tokens, 0, std::move(flying).retire(token));
  cache.release(ts::kFullAttention, std::move(*inserted.page));
}

void end(ts::RequestPtr request, ts::Seat seat) {
  ts::Waiting waiting = ts::Lifecycle::submit(std::move(request));
  ts::Prefilling prefilling = ts::Lifecycle::admit(std::move(waiting), std::move(seat), 0);
  auto left = ts::Lifecycle::finish(ts::Lifecycle::decode(std::move(prefilling)));
  ts::Prefilling again = ts::Lifecycle::admit(
      ts::Lifecycle::retract(ts::Lifecycle::decode(std::move(prefilling))).state,
      std::move(left.seat), 0);
}

void overlap(ts::InFlight<ts::Prefilling> flying, ts::StepClock& clock,
             const ts::StepToken& token) {
  flying.named_by(clock.launch());
  flying.while_in_flight().launch(1, 0);
  ts::InFlight<ts::Decoding> decoding = ts::Lifecycle::decode(std::move(flying));
  if (decoding.landed(token)) {
    ts::Decoding resting = std::move(decoding).retire(token);
    auto left = ts::Lifecycle::retract(std::move(resting));
  } else {
    ts::InFlight<ts::Draining> draining = ts::Lifecycle::finish(std::move(decoding));
  }
}
