// SPDX-License-Identifier: MIT
// Finished is final.
// expected-error: no matching function for call to .*ts::Lifecycle::admit.*ts::Finished
#include "ts/lifecycle.h"

void resume(ts::Finished finished, ts::Seat seat) {
  auto prefilling = ts::Lifecycle::admit(std::move(finished), std::move(seat), 0);
}
