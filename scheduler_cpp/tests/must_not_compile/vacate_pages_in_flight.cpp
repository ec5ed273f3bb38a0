// SPDX-License-Identifier: MIT
// The pages of a sequence in flight can be added to, not given up.
// expected-error: passing .*ts::SequencePages.* as .this. argument discards qualifiers
#include "ts/lifecycle.h"

void vacate(const ts::InFlight<ts::Decoding>& flying, const ts::StepToken& token) {
  flying.peek().pages().vacate(token, [](ts::PageLease&&) {}, [](ts::SharedPage&&) {});
}
