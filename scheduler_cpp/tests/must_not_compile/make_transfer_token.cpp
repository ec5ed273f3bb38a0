// SPDX-License-Identifier: MIT
// Only the clock makes the proof that a transfer has ended.
// expected-error: ts::TransferToken::TransferToken.ts::TransferId.* is private within this context
#include "ts/transfer.h"

ts::TransferToken forge() {
  return ts::TransferToken(ts::TransferId(7));
}
