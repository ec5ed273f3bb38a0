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
                                                   .forms = Forms(3, 3),
                                                   .order = {0, 0},
                                                   .salt = salts.intern(""),
                                                   .params = {}}));
  }

  Prefilling prefilling() {
    Seat seat = std::make_unique<Holdings>(Holdings{slots.take(), {}, pool.reserve(2), {}});
    seat->pages.append(pool.take(seat->promised));
    return Lifecycle::admit(waiting(), std::move(seat), 0);
  }

  Loading loading() {
    Seat seat = std::make_unique<Holdings>(Holdings{slots.take(), {}, pool.reserve(2), {}});
    seat->pages.append(pool.take(seat->promised));
    return Lifecycle::load(waiting(), std::move(seat), 0, 2);
  }

  Decoding decoding() {
    Prefilling state = prefilling();
    state.pages().append(pool.take(state.promised()));
    state.launch(3, 0);
    state.commit(3, 0, 0);
    return Lifecycle::decode(std::move(state));
  }

  template <class State>
  void give_back(Leaving<State>&& left) {
    std::move(left.seat->pages)
        .vacate(
            clock.retired(), [this](PageLease&& page) { pool.give_back(std::move(page)); },
            [this](SharedPage&& page) { cache.release(kFullAttention, std::move(page)); });
    slots.give_back(std::move(left.seat->slot));
    pool.give_back(std::move(left.seat->promised));
  }

  [[nodiscard]] bool empty() const {
    return pool.free() == 4 && pool.reserved() == 0 && slots.free() == 2;
  }

  SaltTable salts;
  RequestPool requests;
  KvEventLog events{false, 2, 0};
  PrefixCache cache{{.num_pages = 4, .page_size = 2, .groups = {}}, salts, events};
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
  Prefilling again = Lifecycle::admit(std::move(left.state), std::move(left.seat), 0);
  world.give_back(Lifecycle::abort(std::move(again)));
  EXPECT(world.empty());
}

SPEC("a prefill that is retracted gives its promise back too") {
  World world;
  auto left = Lifecycle::retract(world.prefilling());
  EXPECT(left.seat->promised.pages() == 1);
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

SPEC("a request that stops while the next step names it drains with that step") {
  World world;
  const StepId first = world.clock.launch();
  InFlight<Decoding> flying(world.decoding(), first);
  flying.named_by(world.clock.launch());
  const StepToken early = world.clock.retire(first);
  EXPECT(!flying.landed(early));
  InFlight<Draining> draining = Lifecycle::finish(std::move(flying));
  EXPECT_THROWS(std::logic_error, "an earlier step", std::move(draining).retire(early));
  const StepToken late = world.clock.retire(world.clock.oldest_in_flight());
  world.give_back(Lifecycle::drain(std::move(draining).retire(late)));
  EXPECT(world.empty());
}

SPEC("a page is not given back while a step that writes it is in flight") {
  World world;
  SequencePages pages;
  pages.append(world.pool.take());
  pages.written_from(0, 2, world.clock.launch());
  EXPECT(!pages.landed(world.clock.retired()));
  const auto give_back = [&](const StepToken& token) {
    std::move(pages).vacate(
        token, [&](PageLease&& page) { world.pool.give_back(std::move(page)); },
        [&](SharedPage&& page) { world.cache.release(kFullAttention, std::move(page)); });
  };
  EXPECT_THROWS(std::logic_error, "an earlier step", (give_back(world.clock.retired()), 0));
  const StepToken token = world.clock.retire(world.clock.oldest_in_flight());
  EXPECT(pages.landed(token));
  give_back(token);
  EXPECT(world.empty());
}

SPEC("drafts in flight count as accepted until their step has retired") {
  World world;
  Decoding state = world.decoding();
  state.launch(4, 3);
  EXPECT(state.launched() == 7);
  EXPECT(state.launched_at_least() == 4);
  state.commit(4, 3, 2);
  EXPECT(state.computed() == 5);
  EXPECT(state.launched() == 5);
  EXPECT(state.launched_at_least() == 5);
  world.give_back(Lifecycle::abort(std::move(state)));
}

SPEC("a load that ends well leaves the rest of the prompt to be computed") {
  World world;
  TransferClock transfers;
  const TransferId transfer = transfers.begin();
  InFlight<Loading, TransferToken> flying(world.loading(), transfer);
  const TransferToken token = transfers.end(transfer);
  Prefilling state = Lifecycle::loaded(std::move(flying).retire(token));
  EXPECT(state.computed() == 2);
  EXPECT(state.launched() == 2);
  world.give_back(Lifecycle::abort(std::move(state)));
  EXPECT(world.empty());
}

SPEC("a load that fails leaves everything to be computed, in the same pages") {
  World world;
  Prefilling state = Lifecycle::failed(world.loading());
  EXPECT(state.computed() == 0);
  EXPECT(state.pages().columns() == 1);
  world.give_back(Lifecycle::abort(std::move(state)));
  EXPECT(world.empty());
}

SPEC("a load that is aborted keeps its pages until its transfer has ended") {
  World world;
  TransferClock transfers;
  const TransferId other = transfers.begin();
  const TransferId transfer = transfers.begin();
  auto draining = Lifecycle::abort(InFlight<Loading, TransferToken>(world.loading(), transfer));
  const TransferToken wrong = transfers.end(other);
  EXPECT(!draining.landed(wrong));
  EXPECT(!world.empty());
  const TransferToken token = transfers.end(transfer);
  world.give_back(Lifecycle::drain(std::move(draining).retire(token)));
  EXPECT(world.empty());
  EXPECT_THROWS(std::invalid_argument, "transfer_id is 2", transfers.end(transfer));
}
