// SPDX-License-Identifier: MIT
// What was loaded is the prefix: at least one token is left to be computed by a prefill.
// expected-error: no matching function for call to .*ts::Lifecycle::decode.*ts::Loading
#include "ts/lifecycle.h"

void skip_prefill(ts::Loading loading) {
  auto decoding = ts::Lifecycle::decode(std::move(loading));
}
