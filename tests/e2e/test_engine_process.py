# SPDX-License-Identifier: MIT
"""The engine process alone, with the test in the worker's place."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from engine_under_test import EngineUnderTest, submit

from dynamo_tokenspeed.protocol import (
    Abort,
    Capacity,
    Control,
    ControlReply,
    Failed,
    Rejected,
    RequestFailed,
    SamplingParams,
    Shutdown,
    StepOutput,
)
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint

PAGE_SIZE = 4
ENDLESS = 100_000  # more than the context: ends at its limit


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(
        tmp_path_factory.mktemp("engine") / "model",
        tokenizer=False,
        vocab_size=300,
        max_position_embeddings=8192,
        num_hidden_layers=1,
        first_k_dense_replace=1,
    )


@pytest.fixture(scope="module")
def config(checkpoint: Path) -> dict[str, Any]:
    return {
        "model": str(checkpoint),
        "page_size": PAGE_SIZE,
        "num_pages": 2048,
        "max_model_len": 4096,
        "num_threads": 1,
        "kv_events_endpoint": "tcp://127.0.0.1:*",
    }


@pytest.fixture(scope="module")
def serving(
    config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[EngineUnderTest, Capacity]]:
    with EngineUnderTest(tmp_path_factory.mktemp("serving"), **config) as engine:
        capacity = engine.receive()
        assert isinstance(capacity, Capacity), capacity
        yield engine, capacity


@pytest.fixture
def engine(serving: tuple[EngineUnderTest, Capacity]) -> EngineUnderTest:
    return serving[0]


def test_the_first_message_says_what_the_engine_can_hold(
    serving: tuple[EngineUnderTest, Capacity],
) -> None:
    _, capacity = serving

    assert (capacity.num_pages, capacity.page_size) == (2048, PAGE_SIZE)
    assert (capacity.max_model_len, capacity.vocab_size) == (4096, 300)
    assert capacity.kv_bytes > 0
    assert capacity.weight_bytes > 0
    assert capacity.kv_events_endpoint.startswith("tcp://127.0.0.1:")


def test_one_message_per_step_carries_the_tokens_of_every_stream(engine: EngineUnderTest) -> None:
    engine.send(submit(1, [5, 6, 7], max_tokens=20))
    engine.send(submit(2, [8, 9], max_tokens=20))

    tokens, steps = engine.answer(2)

    assert len(tokens) == 20
    assert len(steps) <= 22
    assert any(len(step.request_ids) == 2 * 8 for step in steps)
    assert steps[-1].stats.steps - steps[0].stats.steps == len(steps) - 1


def test_the_speed_of_finished_users_travels_with_the_steps(engine: EngineUnderTest) -> None:
    engine.send(submit(5, [5, 6, 7], max_tokens=20))

    _, steps = engine.answer(5)

    before, after = steps[0].stats.floor, steps[-1].stats.floor
    assert after.users == before.users + 1
    assert 0 < after.attained_p1 <= after.attained_p50


def test_a_refused_request_is_answered_with_a_sentence(engine: EngineUnderTest) -> None:
    engine.send(submit(10, [300]))

    answer = engine.receive()

    assert isinstance(answer, Rejected)
    assert answer.request_id == 10
    assert "300" in answer.sentence


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_request_that_bans_every_token_ends_with_a_sentence_and_its_neighbour_goes_on(
    engine: EngineUnderTest, temperature: float
) -> None:
    everything = {"min_tokens": 1, "stop_token_ids": [*range(300)]}
    sampling = SamplingParams(temperature=temperature, logprobs=1)
    engine.send(submit(11, [1, 2, 3], sampling=sampling, **everything))
    engine.send(submit(12, [4, 5, 6], 20, sampling=sampling))
    failed: list[RequestFailed] = []
    tokens: dict[int, list[int]] = {11: [], 12: []}

    while len(tokens[12]) < 20:
        message = engine.receive()
        if isinstance(message, RequestFailed):
            failed.append(message)
            continue
        assert isinstance(message, StepOutput)
        request_ids = np.frombuffer(message.request_ids, np.uint64).tolist()
        assert {record.index for record in message.logprobs} == {*range(len(request_ids))}
        for request_id, token in zip(
            request_ids, np.frombuffer(message.token_ids, np.int32).tolist(), strict=True
        ):
            tokens[request_id].append(token)

    assert tokens[11] == [] and min(tokens[12]) >= 0
    assert [message.request_id for message in failed] == [11]
    assert "no token could be sampled" in failed[0].sentence


def test_an_aborted_request_is_silent_and_its_pages_are_free_within_a_step(
    engine: EngineUnderTest,
) -> None:
    engine.send(submit(20, [1, 2, 3], ENDLESS))
    before = engine.receive()
    assert isinstance(before, StepOutput)
    engine.send(Abort([20]))

    after = drain(engine)

    assert after.stats.running == 0
    assert after.stats.pages_used == 0
    assert engine.is_silent(0.2)


def test_kv_events_decode_as_dynamos_subscriber_expects(
    serving: tuple[EngineUnderTest, Capacity],
) -> None:
    engine, capacity = serving
    context = zmq.Context()
    subscriber = context.socket(zmq.SUB)
    prompt = list(range(100, 100 + 3 * PAGE_SIZE))
    try:
        engine.send(submit(30, prompt, max_tokens=1))
        drain(engine)
        # The engine is idle by now, and tells its first subscriber what is cached.
        subscriber.subscribe(b"")
        subscriber.connect(capacity.kv_events_endpoint)
        frames = find_stored(subscriber, prompt[:PAGE_SIZE])
    finally:
        context.destroy(linger=0)

    topic, sequence, payload = frames
    assert topic == b""
    assert len(sequence) == 8
    timestamp, events, dp_rank = msgspec.msgpack.decode(payload)
    assert timestamp > 1.6e9
    assert dp_rank == 0
    assert events[0] == {"type": "AllBlocksCleared"}
    [stored] = [
        e for e in map(fields, events) if e.get("token_ids", [])[:PAGE_SIZE] == prompt[:PAGE_SIZE]
    ]
    assert stored["token_ids"] == prompt
    assert stored["block_size"] == PAGE_SIZE
    assert stored["parent_block_hash"] is None
    assert len(stored["block_hashes"]) == 3


def test_the_prefix_cache_can_be_cleared(engine: EngineUnderTest) -> None:
    prompt = list(range(50, 70))
    engine.send(submit(40, prompt, max_tokens=1))
    drain(engine)

    engine.send(Control(1, "clear_prefix_cache"))
    reply = next(m for m in iter(engine.receive, None) if isinstance(m, ControlReply))
    engine.send(submit(41, prompt, max_tokens=1))
    _, steps = engine.answer(41)

    assert (reply.call_id, reply.error, reply.result) == (1, "", {"cleared": True})
    assert np.frombuffer(steps[-1].cached_tokens, np.int32).tolist() == [0]


def test_an_unknown_control_is_answered_with_a_sentence(engine: EngineUnderTest) -> None:
    engine.send(Control(2, "make_coffee"))

    reply = engine.receive()

    assert isinstance(reply, ControlReply)
    assert "make_coffee" in reply.error


def test_it_ends_with_its_worker_even_in_mid_stream(config: dict[str, Any], tmp_path: Path) -> None:
    with EngineUnderTest(tmp_path, **config) as engine:
        assert isinstance(engine.receive(), Capacity)
        engine.send(submit(1, [1, 2, 3], ENDLESS))
        assert isinstance(engine.receive(), StepOutput)

        engine.close_life_line()

        assert engine.wait(5.0) == 0
        assert not engine.sockets.exists()


def test_it_ends_with_a_worker_that_dies_while_it_starts(
    config: dict[str, Any], tmp_path: Path
) -> None:
    with EngineUnderTest(tmp_path, **config) as engine:
        engine.close_life_line()

        assert engine.wait(5.0) == 0
        assert not engine.sockets.exists()


def test_shutdown_ends_it_cleanly_and_ctrl_c_does_not(
    config: dict[str, Any], tmp_path: Path
) -> None:
    with EngineUnderTest(tmp_path, **config) as engine:
        assert isinstance(engine.receive(), Capacity)
        engine.process.send_signal(signal.SIGINT)  # a terminal sends it to the whole group
        engine.send(submit(1, [1, 2], max_tokens=2))
        assert len(engine.answer(1)[0]) == 2

        engine.send(Shutdown())

        assert engine.wait(5.0) == 0
        assert "Traceback" not in engine.log()


def test_shutdown_ends_it_cleanly_with_a_step_in_flight(
    config: dict[str, Any], tmp_path: Path
) -> None:
    with EngineUnderTest(tmp_path, **config, overlap_schedule=True) as engine:
        assert isinstance(engine.receive(), Capacity)
        engine.send(submit(1, [1, 2], ENDLESS))
        assert isinstance(engine.receive(), StepOutput)

        engine.send(Shutdown())

        assert engine.wait(5.0) == 0
        assert "Traceback" not in engine.log()


def test_what_it_cannot_start_with_is_one_sentence(config: dict[str, Any], tmp_path: Path) -> None:
    with EngineUnderTest(tmp_path, **config | {"num_pages": 10}) as engine:
        failed = engine.receive()

        assert isinstance(failed, Failed)
        assert "--num-pages 10" in failed.sentence
        assert engine.wait() == 1
        assert "Traceback" not in engine.log()


def drain(engine: EngineUnderTest) -> StepOutput:
    """Receive until nothing runs; the last report."""
    while True:
        step = engine.receive()
        if isinstance(step, StepOutput) and not (step.stats.running or step.stats.waiting):
            return step


def find_stored(subscriber: zmq.Socket[bytes], first_page: list[int]) -> list[bytes]:
    """The frames that report this page."""
    while subscriber.poll(10_000):
        frames = subscriber.recv_multipart()
        events = [fields(event) for event in msgspec.msgpack.decode(frames[2])[1]]
        if any(event.get("token_ids", [])[:PAGE_SIZE] == first_page for event in events):
            return frames
    raise AssertionError("the page was never reported")


def fields(event: Any) -> dict[str, Any]:
    """An event by field name; both of the forms that Dynamo reads."""
    if isinstance(event, dict):
        return event
    names = ["block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium"]
    return dict(zip(names, event[1:], strict=False)) if event[0] == "BlockStored" else {}
