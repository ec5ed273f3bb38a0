// SPDX-License-Identifier: MIT
// Retiring consumes what was in flight; it cannot be retired twice by oversight.
// expected-error: passing .*ts::InFlight<ts::PageLease>.* as .this. argument discards qualifiers
#include "ts/in_flight.h"
#include "ts/page_pool.h"

void give_back(ts::PagePool& pool, ts::InFlight<ts::PageLease>& page, const ts::StepToken& token) {
  pool.give_back(page.retire(token));
}
