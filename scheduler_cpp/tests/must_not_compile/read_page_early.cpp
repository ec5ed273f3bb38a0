// SPDX-License-Identifier: MIT
// A page leaves a sequence for the cache with the token of a retired step, not on demand.
// expected-error: cannot convert .*ts::StepId.* to .*const ts::StepToken&
#include "ts/sequence_pages.h"

ts::PageLease early(ts::SequencePages& pages, ts::StepId step) {
  return pages.land(step);
}
