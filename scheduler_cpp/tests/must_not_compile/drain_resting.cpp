// SPDX-License-Identifier: MIT
// Only what was ended in flight drains.
// expected-error: cannot convert .*ts::Decoding.* to .*ts::Draining&&
#include "ts/lifecycle.h"

void drain(ts::Decoding decoding) {
  auto left = ts::Lifecycle::drain(std::move(decoding));
}
