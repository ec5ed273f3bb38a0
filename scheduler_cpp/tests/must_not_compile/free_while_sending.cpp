// SPDX-License-Identifier: MIT
// Pages that a peer reads are not given back before it has.
// expected-error: cannot convert .*ts::InFlight<ts::Sending, ts::TransferToken>.* to .*ts::Sending&&
#include "ts/lifecycle.h"

void give_back(ts::InFlight<ts::Sending, ts::TransferToken> sending) {
  auto left = ts::Lifecycle::sent(std::move(sending));
}
