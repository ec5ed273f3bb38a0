// SPDX-License-Identifier: MIT
// States are made by transitions only.
// expected-error: ts::Decoding::Decoding.*is private within this context
#include "ts/lifecycle.h"

ts::Decoding shortcut(ts::RequestPtr request, ts::Seat seat) {
  return ts::Decoding(std::move(request), std::move(seat), 0);
}
