// SPDX-License-Identifier: MIT
#include "spec.h"
#include "ts/lifecycle.h"
#include "ts/prefix_cache.h"

using namespace ts;

namespace {

struct World {
  Waiting waiting() {
    return Lifecycle::submit(requests.make(Request{.id = 1,
                                                   .tokens = {1, 2, 3},
                                                   .stop = StopConditions({}, 0, 9),
                                                   .prompt_length = 3,
                                                   .order = {0, 0},
                                                   .salt = salts.intern(""),
                                                   .params = {}}));
  }

  Prefilling prefilling() {
    Seat seat{slots.take(), {}};
    Reservation promise = pool.reserve(2);
    seat.pages.tail.push_back(pool.take(promise));
    return Lifecycle::admit(waiting(), std::move(seat), std::move(promise), 0);
  }

  Decoding decoding() {
    Prefilling state = prefilling();
    state.seat().pages.tail.push_back(pool.take(state.promised()));
    state.advance(3);
    return Lifecycle::decode(std::move(state));
  }

  template <class State>
  void give_back(Leaving<State>&& left) {
    for (auto& page : left.seat.pages.tail) pool.give_back(std::move(page));
    slots.give_back(std::move(left.seat.slot));
    pool.give_back(std::move(left.promised));
  }

  [[nodiscard]] bool empty() const {
    return pool.free() == 4 && pool.reserved() == 0 && slots.free() == 2;
  }

  SaltTable salts;
  RequestPool requests;
  KvEventLog events{false, 2, 0};
  PrefixCache cache{4, 2, salts, events};
  PagePool pool{4, cache};
  SlotPool slots{2};
  StepClock clock;
};

}  // namespace

SPEC("a decoding request that finishes leaves its slot and pages") {
  World world;
  world.give_back(Lifecycle::finish(world.decoding()));
  EXPECT(world.empty());
}

SPEC("a retracted request keeps its tokens and is admitted again") {
  World world;
  auto left = Lifecycle::retract(world.decoding());
  EXPECT(left.state.request().length() == 3);
  Prefilling again =
      Lifecycle::admit(std::move(left.state), std::move(left.seat), std::move(left.promised), 0);
  world.give_back(Lifecycle::abort(std::move(again)));
  EXPECT(world.empty());
}

SPEC("a prefill that is retracted gives its promise back too") {
  World world;
  auto left = Lifecycle::retract(world.prefilling());
  EXPECT(left.promised.pages() == 1);
  world.give_back(std::move(left));
  EXPECT(world.empty());
}

SPEC("a request aborted in flight drains when its step has retired") {
  World world;
  InFlight<Decoding> flying(world.decoding(), world.clock.launch());
  InFlight<Draining> draining = Lifecycle::abort(std::move(flying));
  EXPECT(!world.empty());
  const StepToken token = world.clock.retire(world.clock.oldest_in_flight());
  world.give_back(Lifecycle::drain(std::move(draining).retire(token)));
  EXPECT(world.empty());
}

SPEC("a prefill aborted in flight keeps its promise until it drains") {
  World world;
  InFlight<Draining> draining =
      Lifecycle::abort(InFlight<Prefilling>(world.prefilling(), world.clock.launch()));
  EXPECT(world.pool.reserved() == 1);
  const StepToken token = world.clock.retire(world.clock.oldest_in_flight());
  world.give_back(Lifecycle::drain(std::move(draining).retire(token)));
  EXPECT(world.empty());
}

SPEC("a waiting request that is aborted holds nothing") {
  World world;
  (void)Lifecycle::abort(world.waiting());
  EXPECT(world.empty());
}
