// SPDX-License-Identifier: MIT
// Pages that a step in flight names cannot be given back by retraction.
// expected-error: no matching function for call to .*ts::Lifecycle::retract.*ts::InFlight<ts::Decoding>
#include "ts/lifecycle.h"

void retract(ts::InFlight<ts::Decoding> decoding) {
  auto left = ts::Lifecycle::retract(std::move(decoding));
}
