// SPDX-License-Identifier: MIT
// Pages are sent when they are computed, not while a step still writes them.
// expected-error: cannot convert .*ts::InFlight<ts::Decoding>.* to .*ts::Decoding&&
#include "ts/lifecycle.h"

void send(ts::InFlight<ts::Decoding> decoding) {
  auto sending = ts::Lifecycle::send(std::move(decoding));
}
