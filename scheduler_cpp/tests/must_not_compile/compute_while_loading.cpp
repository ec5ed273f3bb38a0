// SPDX-License-Identifier: MIT
// A sequence whose pages are on their way from the host cannot be launched.
// expected-error: no matching function for call to .*ts::InFlight<ts::Loading, ts::TransferToken>::while_in_flight
#include "ts/lifecycle.h"

void launch(ts::InFlight<ts::Loading, ts::TransferToken>& loading) {
  loading.while_in_flight().launch(1, 0);
}
