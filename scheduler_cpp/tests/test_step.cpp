// SPDX-License-Identifier: MIT
#include "spec.h"
#include "ts/in_flight.h"
#include "ts/step.h"

using namespace ts;

SPEC("steps retire in the order of their launch") {
  StepClock clock;
  const StepId first = clock.launch();
  const StepId second = clock.launch();
  EXPECT_THROWS(std::logic_error, "step 2 is not the oldest", clock.retire(second));
  EXPECT(clock.retire(first).covers(first));
  EXPECT(clock.in_flight());
  EXPECT(clock.retire(second).covers(first));
  EXPECT(!clock.in_flight());
  EXPECT_THROWS(std::logic_error, "not the oldest", clock.retire(second));
}

SPEC("a step that was never launched cannot retire") {
  StepClock clock;
  EXPECT_THROWS(std::logic_error, "not the oldest", clock.retire(StepId(1)));
}

SPEC("what is in flight stays so until the last step that names it has retired") {
  StepClock clock;
  const StepId first = clock.launch();
  const StepId second = clock.launch();
  InFlight<int> number(7, second);
  const StepToken early = clock.retire(first);
  EXPECT_THROWS(std::logic_error, "an earlier step", std::move(number).retire(early));
  const StepToken late = clock.retire(second);
  EXPECT(number.peek() == 7);
  EXPECT(std::move(number).retire(late) == 7);
}
