// SPDX-License-Identifier: MIT
// A token proves one retirement to one commit; it is not kept.
// expected-error: use of deleted function .*ts::StepToken::StepToken.const ts::StepToken&
#include "ts/step.h"

ts::StepToken keep(const ts::StepToken& token) {
  return token;
}
