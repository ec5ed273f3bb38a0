// SPDX-License-Identifier: MIT
// A shared page goes back to the prefix cache, never to the free pages.
// expected-error: no matching function for call to .*ts::PagePool::give_back.*ts::SharedPage
#include "ts/page_pool.h"

void free(ts::PagePool& pool, ts::SharedPage page) {
  pool.give_back(std::move(page));
}
