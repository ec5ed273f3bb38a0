// SPDX-License-Identifier: MIT
// A request that has not run has no output to finish with.
// expected-error: cannot convert .*ts::Waiting.* to .*ts::Decoding&&
#include "ts/lifecycle.h"

void end(ts::Waiting waiting) {
  auto left = ts::Lifecycle::finish(std::move(waiting));
}
