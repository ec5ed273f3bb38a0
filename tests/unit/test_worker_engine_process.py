# SPDX-License-Identifier: MIT
"""The engine process from its start to its end, with a stand-in for the engine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import tempfile
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dynamo_tokenspeed.protocol import (
    Admitted,
    Control,
    ControlReply,
    EngineConfig,
    EngineMessage,
    StepOutput,
    Submit,
)
from dynamo_tokenspeed.worker.engine_process import EngineProcess
from dynamo_tokenspeed.worker.errors import StartError

Spawn = Callable[..., Awaitable[EngineProcess]]


class Heard:
    def __init__(self) -> None:
        self.messages: asyncio.Queue[EngineMessage] = asyncio.Queue()
        self.death: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def next(self) -> EngineMessage:
        return await asyncio.wait_for(self.messages.get(), 5)


@pytest.fixture
async def heard() -> Heard:
    return Heard()


@pytest.fixture
async def spawn(
    heard: Heard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Spawn]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]), prepend=os.pathsep)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    started: list[EngineProcess] = []

    async def start(step_timeout: float = 0.0, **manners: Any) -> EngineProcess:
        monkeypatch.setenv("STAND_IN", json.dumps(manners))
        process = EngineProcess(
            EngineConfig(model="m"),
            heard.messages.put_nowait,
            heard.death.set_result,
            "stand_in_engine",
            step_timeout=step_timeout,
        )
        started.append(process)
        await asyncio.wait_for(process.start(), 20)
        return process

    yield start
    for process in started:
        await process.stop()
    assert list(tmp_path.iterdir()) == []


def submit(request_id: int = 1, max_tokens: int = 3) -> Submit:
    return Submit(request_id, array("i", [1, 2]).tobytes(), max_tokens)


async def test_messages_go_both_ways(spawn: Spawn, heard: Heard) -> None:
    process = await spawn()
    assert process.send(submit())
    admitted, step = await heard.next(), await heard.next()
    assert isinstance(admitted, Admitted) and isinstance(step, StepOutput)
    assert array("Q", admitted.request_ids).tolist() == [1]
    assert array("Q", step.request_ids).tolist() == [1]
    assert process.send(Control(9, "clear_prefix_cache"))
    while not isinstance(reply := await heard.next(), ControlReply):
        pass
    assert reply.call_id == 9


async def test_the_sockets_are_private_and_gone_once_connected(
    spawn: Spawn, tmp_path: Path
) -> None:
    modes = []

    async def watch() -> None:
        while not (folders := list(tmp_path.iterdir())):
            await asyncio.sleep(0.001)
        modes.append(stat.S_IMODE(folders[0].stat().st_mode))

    await asyncio.gather(watch(), spawn())
    assert modes == [0o700]
    await asyncio.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


async def test_an_engine_that_cannot_start_says_why(spawn: Spawn) -> None:
    with pytest.raises(StartError, match=r"shard 2 is truncated"):
        await spawn(fail="shard 2 is truncated")


async def test_an_engine_that_crashes_at_start_is_reported(spawn: Spawn) -> None:
    with pytest.raises(StartError, match="ended: exit code 3"):
        await spawn(crash=3)


async def test_a_death_while_serving_is_noticed_at_once(spawn: Spawn, heard: Heard) -> None:
    process = await spawn()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    assert "killed by SIGKILL" in await asyncio.wait_for(heard.death, 1)


async def test_what_was_sent_before_a_death_is_delivered_first(spawn: Spawn, heard: Heard) -> None:
    process = await spawn(die_after=3)
    process.send(submit(max_tokens=100))
    await asyncio.wait_for(heard.death, 5)
    assert heard.messages.qsize() == 3  # whom it admitted, and two steps


async def test_being_stopped_is_no_death(spawn: Spawn, heard: Heard) -> None:
    process = await spawn()
    await process.stop()
    await process.stop()  # once more changes nothing
    assert not heard.death.done()
    assert not process.send(submit())


async def test_an_engine_that_hangs_is_a_death_and_is_killed(spawn: Spawn, heard: Heard) -> None:
    process = await spawn(step_timeout=0.5, hang_after=2)
    process.send(submit(max_tokens=100))
    sentence = await asyncio.wait_for(heard.death, 10)
    assert "has not moved for 0.5 s (--step-timeout 0.5)" in sentence
    assert "stopped" not in sentence
    await process.stop()
    assert not is_running(process)


@pytest.mark.parametrize("busy", [False, True])
async def test_an_engine_that_is_stopped_is_a_death_that_says_so(
    spawn: Spawn, heard: Heard, busy: bool
) -> None:
    process = await spawn(step_timeout=0.5, step_seconds=0.01)
    assert process.pid is not None
    if busy:
        process.send(submit(max_tokens=100_000))
        await heard.next()
    os.kill(process.pid, signal.SIGSTOP)
    process.send(submit(request_id=2))
    sentence = await asyncio.wait_for(heard.death, 10)
    assert f"engine process {process.pid} is stopped" in sentence
    await process.stop()
    assert not is_running(process)


async def test_an_engine_that_works_or_waits_is_left_alone(spawn: Spawn, heard: Heard) -> None:
    process = await spawn(step_timeout=0.5, step_seconds=0.01)
    await asyncio.sleep(1)
    process.send(submit(max_tokens=100))
    for _ in range(100):
        await heard.next()
    assert not heard.death.done()


async def test_an_engine_that_does_not_end_when_asked_is_killed(spawn: Spawn, heard: Heard) -> None:
    process = await spawn()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    await process.stop()
    assert not is_running(process)
    assert not heard.death.done()


def is_running(process: EngineProcess) -> bool:
    assert process.pid is not None
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
