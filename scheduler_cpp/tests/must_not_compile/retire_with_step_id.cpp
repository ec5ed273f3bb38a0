// SPDX-License-Identifier: MIT
// Naming a step does not prove that it has retired.
// expected-error: cannot convert .*ts::StepId.* to .*const ts::StepToken&
#include "ts/in_flight.h"
#include "ts/page_pool.h"

void give_back(ts::PagePool& pool, ts::InFlight<ts::PageLease>&& page, ts::StepId step) {
  pool.give_back(std::move(page).retire(step));
}
