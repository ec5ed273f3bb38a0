// SPDX-License-Identifier: MIT
// Leaving flight takes proof: a StepToken.
// expected-error: no matching function for call to .*ts::InFlight<ts::PageLease>::retire..
#include "ts/in_flight.h"
#include "ts/page_pool.h"

void give_back(ts::PagePool& pool, ts::InFlight<ts::PageLease>&& page) {
  pool.give_back(std::move(page).retire());
}
