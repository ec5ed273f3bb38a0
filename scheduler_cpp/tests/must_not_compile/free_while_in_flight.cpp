// SPDX-License-Identifier: MIT
// A page that a step in flight may still write cannot be freed.
// expected-error: cannot bind rvalue reference of type .*ts::PageLease&&.* to lvalue of type .*const ts::PageLease
#include "ts/in_flight.h"
#include "ts/page_pool.h"

void give_back(ts::PagePool& pool, ts::InFlight<ts::PageLease>& page) {
  pool.give_back(page.peek());
}
