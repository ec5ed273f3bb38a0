// SPDX-License-Identifier: MIT
#include "spec.h"
#include "ts/stop.h"

using namespace ts;

SPEC("a stop token ends the output") {
  const std::vector<Token> stops{9, 4, 6};
  const StopConditions stop(stops, 0, 100);
  for (const Token token : stops) EXPECT(stop.after(token, 50) == FinishReason::kStop);
  EXPECT(stop.after(5, 50) == FinishReason::kNone);
}

SPEC("no stop token ends the output before its minimum") {
  const std::vector<Token> stops{4};
  const StopConditions stop(stops, 12, 100);
  EXPECT(stop.after(4, 11) == FinishReason::kNone);
  EXPECT(stop.after(4, 12) == FinishReason::kStop);
}

SPEC("the output ends at its maximum") {
  const StopConditions stop({}, 0, 100);
  EXPECT(stop.after(4, 99) == FinishReason::kNone);
  EXPECT(stop.after(4, 100) == FinishReason::kLength);
}

SPEC("a stop token in the last place is a stop") {
  const std::vector<Token> stops{4};
  EXPECT(StopConditions(stops, 0, 100).after(4, 100) == FinishReason::kStop);
}
