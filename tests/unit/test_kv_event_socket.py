# SPDX-License-Identifier: MIT
"""The frames that Dynamo's ZmqSource subscribes to, and what each subscriber comes to know."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import ts_scheduler
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from router_view import RouterView

from dynamo_tokenspeed.engine.kv_events import KVEventPublisher

PAGE_SIZE = 2
NUM_PAGES = 12
Context = zmq.Context[zmq.Socket[bytes]]


class Engine:
    """A scheduler that serves prompts one after the other, and publishes as the step loop does."""

    def __init__(self, context: Context) -> None:
        self.publisher = KVEventPublisher(context, "tcp://127.0.0.1:*", topic="kv")
        self.scheduler = ts_scheduler.Scheduler(
            ts_scheduler.SchedulerConfig(
                page_size=PAGE_SIZE,
                num_pages=NUM_PAGES,
                max_num_seqs=1,
                max_model_len=20,
                vocab_size=100,
            )
        )
        self._served = 0

    def serve(self, first_token: int) -> None:
        """A prompt of four full pages."""
        self._served += 1
        prompt = np.arange(first_token, first_token + 4 * PAGE_SIZE, dtype=np.int32)
        self.scheduler.submit(self._served, prompt, max_tokens=1)
        while (plan := self.scheduler.plan()) is not None:
            samples = int(plan.row_samples.sum())
            self.scheduler.commit(plan.step, np.zeros(samples, np.int32))
            self.publisher.publish(self.scheduler)

    def hear(self) -> None:
        """An idle engine wakes for a subscription."""
        sent = self.publisher.sent
        while self.publisher.sent == sent:  # that somebody left wakes it as well
            assert self.publisher.socket.poll(5000), "the subscription never arrived"
            self.publisher.publish(self.scheduler)


class Subscriber:
    def __init__(self, context: Context, engine: Engine) -> None:
        self.view = RouterView(PAGE_SIZE)
        self.sequence: list[int] = []
        self._socket = context.socket(zmq.SUB)
        self._socket.connect(engine.publisher.endpoint)
        self._socket.subscribe(b"kv")
        engine.hear()

    def knows(self, engine: Engine) -> bool:
        """Reads all that came, which for the last event is until it is quiet."""
        cached = engine.scheduler.stats().pages_cached
        while self._socket.poll(2000 if len(self.view.blocks) != cached else 20):
            topic, sequence, payload = self._socket.recv_multipart()
            assert topic == b"kv"
            self.sequence.append(int.from_bytes(sequence, "big"))
            self.view.receive(payload)
        return len(self.view.blocks) == cached

    def leave(self) -> None:
        self._socket.close(linger=0)


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def engine(context: Context) -> Engine:
    return Engine(context)


def test_frames_are_topic_big_endian_sequence_and_payload(context: Context, engine: Engine) -> None:
    subscriber = Subscriber(context, engine)
    engine.serve(1)
    assert subscriber.knows(engine)
    assert subscriber.sequence == list(range(len(subscriber.sequence)))


def test_what_was_cached_before_the_first_subscriber_is_not_lost(
    context: Context, engine: Engine
) -> None:
    for first_token in range(0, 90, 9):  # far more than the cache holds: most of it is evicted
        engine.serve(first_token)
    assert Subscriber(context, engine).knows(engine)


def test_who_comes_late_comes_to_know_what_the_others_know(
    context: Context, engine: Engine
) -> None:
    early = Subscriber(context, engine)
    engine.serve(1)
    assert early.knows(engine)
    late = Subscriber(context, engine)
    engine.serve(50)
    assert late.knows(engine)
    assert early.knows(engine)
    assert late.view.blocks == early.view.blocks


def test_who_was_gone_for_a_while_forgets_what_left_the_cache(
    context: Context, engine: Engine
) -> None:
    subscriber = Subscriber(context, engine)
    engine.serve(1)
    assert subscriber.knows(engine)
    subscriber.leave()
    assert engine.scheduler.clear_prefix_cache()
    engine.serve(50)
    returned = Subscriber(context, engine)
    returned.view.blocks.update({12345: None})  # what it knew before
    assert returned.knows(engine)
    assert 12345 not in returned.view.blocks


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["serve", "come", "leave", "clear"]), max_size=12), st.data())
def test_every_subscriber_knows_the_cache_whenever_it_came(
    actions: list[str], data: st.DataObject
) -> None:
    context: Context = zmq.Context()
    try:
        engine, subscribers = Engine(context), list[Subscriber]()
        for action in actions:
            match action:
                case "serve":
                    engine.serve(data.draw(st.integers(0, 9)) * 9)
                case "come":
                    subscribers.append(Subscriber(context, engine))
                case "leave" if subscribers:
                    subscribers.pop().leave()
                case "clear":
                    engine.scheduler.clear_prefix_cache()
                    engine.publisher.publish(engine.scheduler)
        subscribers.append(Subscriber(context, engine))
        assert all(subscriber.knows(engine) for subscriber in subscribers)
        assert all(each.view.blocks == subscribers[-1].view.blocks for each in subscribers)
    finally:
        context.destroy(linger=0)


def test_nothing_is_sent_when_nothing_happened(context: Context, engine: Engine) -> None:
    subscriber = Subscriber(context, engine)
    for _ in range(3):
        engine.publisher.publish(engine.scheduler)
    assert subscriber.knows(engine)
    assert subscriber.sequence == [0]  # that nothing is cached


def test_an_endpoint_in_use_is_one_sentence_with_the_flag(context: Context, engine: Engine) -> None:
    with pytest.raises(OSError, match=r"tcp://127.*cannot be bound .* --kv-events-config"):
        KVEventPublisher(context, engine.publisher.endpoint)
