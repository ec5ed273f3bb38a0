// SPDX-License-Identifier: MIT
// A peer sends a request's pages once: what was retracted is computed here.
// expected-error: cannot convert .*ts::Retracted.* to .*ts::Waiting&&
#include "ts/lifecycle.h"

void again(ts::Retracted retracted, ts::Seat seat) {
  auto receiving = ts::Lifecycle::receive(std::move(retracted), std::move(seat), 0, 8);
}
