// SPDX-License-Identifier: MIT
// A host page that a transfer still writes cannot be handed on as if it were written.
// expected-error: cannot convert .*ts::InFlight<std::vector<ts::WriteBack>, ts::TransferToken>.* to .*std::vector<ts::WriteBack>&&
#include "ts/host_tier.h"
#include "ts/in_flight.h"
#include "ts/transfer.h"

void hand_on(ts::HostTier& host,
             ts::InFlight<std::vector<ts::WriteBack>, ts::TransferToken> stores) {
  host.written(std::move(stores), true);
}
