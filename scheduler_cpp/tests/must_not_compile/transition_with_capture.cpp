// SPDX-License-Identifier: MIT
// While in flight only a stateless transition applies: a capture could carry the pool along.
// expected-error: no matching function for call to .*ts::InFlight<ts::PageLease>::become
#include "ts/in_flight.h"
#include "ts/page_pool.h"

void smuggle(ts::PagePool& pool, ts::InFlight<ts::PageLease> page) {
  auto after = [&pool](ts::PageLease&& lease) {
    pool.give_back(std::move(lease));
    return 0;
  };
  auto gone = std::move(page).become<after>();
}
