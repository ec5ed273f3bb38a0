// SPDX-License-Identifier: MIT
// What may change while a sequence is in flight is not the sequence itself: it cannot be taken.
// expected-error: .*ts::Sequence::Sequence.ts::Sequence&&.* is protected within this context
#include "ts/lifecycle.h"

void take(ts::InFlight<ts::Decoding>& flying) {
  ts::Sequence taken = std::move(flying.while_in_flight());
}
