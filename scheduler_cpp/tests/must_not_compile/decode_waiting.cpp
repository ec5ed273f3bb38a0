// SPDX-License-Identifier: MIT
// A request decodes after its prefill, not instead of it.
// expected-error: cannot convert .*ts::Waiting.* to .*ts::Prefilling&&
#include "ts/lifecycle.h"

void skip_prefill(ts::Waiting waiting) {
  auto decoding = ts::Lifecycle::decode(std::move(waiting));
}
