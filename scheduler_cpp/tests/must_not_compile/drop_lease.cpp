// SPDX-License-Identifier: MIT
// Taking a page and forgetting it loses the page.
// expected-error: ignoring return value of .*ts::PagePool::take.*, declared with attribute .*nodiscard
#include "ts/page_pool.h"

void lose(ts::PagePool& pool) {
  pool.take();
}
