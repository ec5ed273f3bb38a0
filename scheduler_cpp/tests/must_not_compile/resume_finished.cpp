// SPDX-License-Identifier: MIT
// Finished is final.
// expected-error: no matching function for call to .*ts::Lifecycle::admit.*ts::Finished
#include "ts/lifecycle.h"

void resume(ts::Finished finished, ts::Seat seat, ts::Reservation promised) {
  auto prefilling =
      ts::Lifecycle::admit(std::move(finished), std::move(seat), std::move(promised), 0);
}
