// SPDX-License-Identifier: MIT
// Only the clock makes the proof that a step has retired.
// expected-error: ts::StepToken::StepToken.ts::StepId.* is private within this context
#include "ts/step.h"

ts::StepToken forge() {
  return ts::StepToken(ts::StepId(7));
}
