// SPDX-License-Identifier: MIT
// Pages come from the pool, not from numbers.
// expected-error: ts::PageLease::PageLease.ts::PageId.* is private within this context
#include "ts/page.h"

ts::PageLease invent() {
  return ts::PageLease(3);
}
