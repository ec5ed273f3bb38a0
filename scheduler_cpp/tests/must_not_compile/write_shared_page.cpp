// SPDX-License-Identifier: MIT
// A page of the prefix cache is immutable.
// expected-error: invalid initialization of reference of type .*const ts::PageLease&.* from expression of type .*const ts::SharedPage
#include "ts/page.h"

ts::PageId overwrite(const ts::SharedPage& page) {
  return ts::write_target(page);
}
