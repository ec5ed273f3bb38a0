// SPDX-License-Identifier: MIT
// A request that has not run has no output to finish with.
// expected-error: no matching function for call to .*ts::Lifecycle::finish.*ts::Waiting
#include "ts/lifecycle.h"

void end(ts::Waiting waiting) {
  auto left = ts::Lifecycle::finish(std::move(waiting));
}
