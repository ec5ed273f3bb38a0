// SPDX-License-Identifier: MIT
// A request decodes after its prefill, not instead of it.
// expected-error: no matching function for call to .*ts::Lifecycle::decode.*ts::Waiting
#include "ts/lifecycle.h"

void skip_prefill(ts::Waiting waiting) {
  auto decoding = ts::Lifecycle::decode(std::move(waiting));
}
