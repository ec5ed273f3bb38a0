// SPDX-License-Identifier: MIT
// States are made by transitions only.
// expected-error: ts::Prefilling::Prefilling.*is private within this context
#include "ts/lifecycle.h"

ts::Prefilling shortcut(ts::RequestPtr request, ts::Seat seat) {
  return ts::Prefilling(std::move(request), std::move(seat), 0);
}
