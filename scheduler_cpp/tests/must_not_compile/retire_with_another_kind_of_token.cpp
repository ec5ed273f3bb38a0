// SPDX-License-Identifier: MIT
// A step's retirement says nothing about a transfer.
// expected-error: cannot convert .*const ts::StepToken.* to .*const ts::TransferToken&
#include "ts/lifecycle.h"

ts::Loading arrive(ts::InFlight<ts::Loading, ts::TransferToken> loading,
                   const ts::StepToken& token) {
  return std::move(loading).retire(token);
}
