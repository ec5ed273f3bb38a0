// SPDX-License-Identifier: MIT
// Giving a page back consumes the lease; a name for it cannot be given back again and again.
// expected-error: cannot bind rvalue reference of type .*ts::PageLease&&.* to lvalue of type .*ts::PageLease
#include "ts/page_pool.h"

void twice(ts::PagePool& pool, ts::PageLease lease) {
  pool.give_back(lease);
  pool.give_back(lease);
}
