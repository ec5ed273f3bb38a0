// SPDX-License-Identifier: MIT
// What is in flight cannot be moved out without the token of the step's retirement.
// expected-error: ts::InFlight<ts::PageLease>::content_.* is private within this context
#include "ts/in_flight.h"
#include "ts/page_pool.h"

void give_back(ts::PagePool& pool, ts::InFlight<ts::PageLease>& page) {
  pool.give_back(std::move(page.content_));
}
