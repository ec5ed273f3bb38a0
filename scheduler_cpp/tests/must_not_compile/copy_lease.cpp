// SPDX-License-Identifier: MIT
// The right to write a page is exclusive.
// expected-error: use of deleted function .*ts::PageLease::PageLease.const ts::PageLease&
#include "ts/page.h"

ts::PageLease second(const ts::PageLease& lease) {
  return lease;
}
