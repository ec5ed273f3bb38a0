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
  auto inserted = cache.insert(salt, nullptr, tokens, std::move(flying).retire(token));
  cache.release(std::move(*inserted.page));
}

void end(ts::RequestPtr request, ts::Seat seat, ts::Reservation promised) {
  ts::Waiting waiting = ts::Lifecycle::submit(std::move(request));
  ts::Prefilling prefilling =
      ts::Lifecycle::admit(std::move(waiting), std::move(seat), std::move(promised), 0);
  auto left = ts::Lifecycle::finish(ts::Lifecycle::decode(std::move(prefilling)));
  ts::Prefilling again = ts::Lifecycle::admit(
      ts::Lifecycle::retract(ts::Lifecycle::decode(std::move(prefilling))).state,
      std::move(left.seat), std::move(left.promised), 0);
}
