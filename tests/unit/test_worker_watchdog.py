# SPDX-License-Identifier: MIT
"""Who is taken for dead, and who is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import numpy as np
import pytest

from dynamo_tokenspeed.protocol import Heartbeat
from dynamo_tokenspeed.worker import watchdog as watchdog_module
from dynamo_tokenspeed.worker.watchdog import Watchdog, sign_comes

SECONDS = 0.3
PATIENCE = 10.0
MAX_NUM_SEQS = 20


class Engine:
    """What the watchdog knows of an engine. `ping` is answered unless it is stopped."""

    def __init__(self) -> None:
        self.heartbeat = Heartbeat(MAX_NUM_SEQS)
        self.sent = self.pings = 0
        self.answers = True

    def ping(self) -> None:
        self.pings += 1
        self.sent += 1
        if self.answers:
            self.take()

    def take(self) -> None:
        self.heartbeat.works()
        self.heartbeat.received()
        self.heartbeat.waits()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def watch(engine: Engine) -> AsyncIterator[Callable[[], asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []

    def start() -> asyncio.Task[None]:
        dog = Watchdog(engine.heartbeat, SECONDS, lambda: engine.sent, engine.ping)
        tasks.append(asyncio.create_task(dog.run()))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()


async def barks(task: asyncio.Task[None], seconds: float = PATIENCE) -> bool:
    done, _ = await asyncio.wait([task], timeout=seconds)
    return bool(done)


async def test_an_idle_engine_is_not_taken_for_dead(engine, watch, monkeypatch) -> None:
    monkeypatch.setattr(watchdog_module, "_SECONDS_IDLE", SECONDS / 2)
    assert not await barks(watch(), 4 * SECONDS)
    assert engine.pings > 0


async def test_an_idle_engine_that_answers_no_ping_is(engine, watch, monkeypatch) -> None:
    monkeypatch.setattr(watchdog_module, "_SECONDS_IDLE", SECONDS / 2)
    engine.answers = False
    assert await barks(watch())


async def test_an_engine_that_leaves_a_message_unread_is(engine, watch) -> None:
    engine.sent = 1
    assert await barks(watch())


async def test_an_engine_that_is_busy_and_does_nothing_is(engine, watch) -> None:
    engine.heartbeat.works()
    assert await barks(watch())


async def test_a_step_of_any_length_is_not_while_its_kernels_give_signs(engine, watch) -> None:
    engine.heartbeat.works()
    task = watch()
    for _ in range(20):
        engine.heartbeat.progress[0] += 1
        assert not await barks(task, SECONDS / 5)
    assert await barks(task)


async def test_a_worker_that_was_stopped_itself_blames_nobody(engine, watch, monkeypatch) -> None:
    engine.heartbeat.works()
    task, clock, jump = watch(), watchdog_module.time.monotonic, 0.0
    monkeypatch.setattr(watchdog_module, "time", SimpleNamespace(monotonic=lambda: clock() + jump))
    await asyncio.sleep(SECONDS / 3)
    jump = 3600.0  # nobody ran
    assert not await barks(task, SECONDS / 3)
    assert await barks(task)


async def test_an_idle_engine_gives_a_sign_when_asked(engine: Engine) -> None:
    assert await sign_comes(engine.heartbeat, engine.ping, PATIENCE)


async def test_an_engine_in_a_long_step_gives_a_sign_by_its_kernels(engine: Engine) -> None:
    engine.answers = False
    engine.heartbeat.works()
    asked = asyncio.create_task(sign_comes(engine.heartbeat, engine.ping, PATIENCE))
    await asyncio.sleep(0.05)
    assert not asked.done()
    engine.heartbeat.progress[0] += 1
    assert await asked


async def test_an_engine_that_is_stopped_gives_none(engine: Engine) -> None:
    engine.answers = False
    assert not await sign_comes(engine.heartbeat, engine.ping, 0.1)


def test_what_does_not_return_is_named(engine: Engine) -> None:
    dog = Watchdog(engine.heartbeat, 300, lambda: 7, engine.ping)
    rows = 10
    engine.heartbeat.launches(
        SimpleNamespace(
            step=812,
            num_rows=rows,
            num_absorbed_rows=9,
            num_tokens=521,
            row_slot=np.arange(rows, dtype=np.int32),
            admitted_slot=np.arange(rows, dtype=np.int32),
            admitted_request=np.arange(100, 100 + rows, dtype=np.uint64),
        )
    )
    assert dog.what_does_not_return(lambda request_id: f"ctx-{request_id}") == (
        "step 812 of the engine has not moved for 300 s (--step-timeout 300): 521 tokens in 10 "
        "rows, 9 of them absorbed, of requests ctx-100, ctx-101, ctx-102, ctx-103, ctx-104, "
        "ctx-105, ctx-106, ctx-107 and 2 more"
    )
    engine.heartbeat.has_read()
    assert dog.what_does_not_return(str) == (
        "the engine has not moved for 300 s (--step-timeout 300), outside of a step, "
        "with 7 messages unread"
    )
