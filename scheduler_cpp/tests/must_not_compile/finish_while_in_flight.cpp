// SPDX-License-Identifier: MIT
// A sequence that a step names gives up nothing, however it is reached.
// expected-error: no matching function for call to .*ts::Lifecycle::retract.*ts::Sequence
#include "ts/lifecycle.h"

void retract(ts::InFlight<ts::Decoding>& flying) {
  auto left = ts::Lifecycle::retract(std::move(flying.while_in_flight()));
}
