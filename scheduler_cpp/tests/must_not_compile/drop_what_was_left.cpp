// SPDX-License-Identifier: MIT
// Whoever ends a running request must take its slot and pages.
// expected-error: ignoring returned value of type .*ts::Leaving<ts::Finished>.*, declared with attribute .*nodiscard
#include "ts/lifecycle.h"

void end(ts::Decoding decoding) {
  ts::Lifecycle::finish(std::move(decoding));
}
