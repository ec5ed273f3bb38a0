# SPDX-License-Identifier: MIT
"""How a worker ends: asked to, under load, or by force; and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from chat import Ending, streaming, whole
from dynamo_environments import ROOT, DynamoEnvironment

from dynamo_tokenspeed.launch.deployment import Deployment
from dynamo_tokenspeed.launch.errors import ProgramExited

SLOW = {"step_seconds": 0.02}
LeftBehind = Callable[[Deployment], list[str]]


def engine_pid(worker_pid: int) -> int:
    """The worker's only child."""
    listings = Path(f"/proc/{worker_pid}/task").glob("*/children")
    (pid,) = {int(pid) for listing in listings for pid in listing.read_text().split()}
    return pid


def ended(pid: int, seconds: float) -> bool:
    """Whether the process is gone, or a zombie, within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


class Stopper(threading.Thread):
    """Sends a signal to the deployment's worker once it has an engine process."""

    def __init__(self, deployment: Deployment, number: signal.Signals) -> None:
        super().__init__()
        self._deployment = deployment
        self._number = number

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *error: object) -> None:
        self.join()

    def run(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(IndexError, ValueError, OSError):
                worker = self._deployment.workers[0]
                engine_pid(worker.pid)
                time.sleep(0.3)
                os.kill(worker.pid, self._number)
                return
            time.sleep(0.05)


async def test_sigterm_lets_running_streams_finish(start: Any, left_behind: LeftBehind) -> None:
    with start(SLOW) as deployment:
        worker = deployment.workers[0]
        running = [asyncio.create_task(whole(deployment, max_tokens=100)) for _ in range(4)]
        await asyncio.sleep(0.5)
        worker.terminate()
        endings = await asyncio.gather(*running)
        assert [ending.finish_reason for ending in endings] == ["length"] * 4
        assert all(ending.usage["completion_tokens"] == 100 for ending in endings if ending.usage)
        assert await asyncio.to_thread(worker.wait, 10)
        assert worker.returncode == 0
        assert left_behind(deployment) == []
        deployment.forget(worker)


async def test_streams_that_outlast_the_drain_go_on_at_another_worker(
    start: Any, dynamo: DynamoEnvironment
) -> None:
    flags = ("--migration-limit", "3", "--router-mode", "round-robin")
    with start(SLOW, "--drain-timeout", "0.2", workers=2, frontend_flags=flags) as deployment:
        running = [asyncio.create_task(whole(deployment, max_tokens=150)) for _ in range(4)]
        await asyncio.sleep(0.7)
        leaving = deployment.workers[0]
        leaving.terminate()
        endings = await asyncio.gather(*running)
        assert [ending.error for ending in endings] == [None] * 4
        assert [ending.finish_reason for ending in endings] == ["length"] * 4
        assert await asyncio.to_thread(leaving.wait, 10)
        assert leaving.returncode == 0
        deployment.forget(leaving)


async def test_a_dead_engine_process_fails_its_streams_and_ends_the_worker(
    start: Any, left_behind: LeftBehind
) -> None:
    with start(SLOW) as deployment:
        worker = deployment.workers[0]
        ending = Ending()
        async with streaming(deployment, max_tokens=2000) as events:
            ending.add(await anext(events))
            os.kill(engine_pid(worker.pid), signal.SIGKILL)
            killed = time.monotonic()
            try:
                async for event in events:
                    ending.add(event)
            except aiohttp.ClientError as error:
                ending.error = error
        assert ending.error is not None
        assert ending.finish_reason is None
        assert await asyncio.to_thread(worker.wait, 5)
        assert time.monotonic() - killed < 3
        assert worker.returncode == 1
        assert "killed by SIGKILL" in worker.log()
        assert "Traceback" not in worker.log()
        assert deployment.frontends[0].models() == []  # it has unregistered
        assert left_behind(deployment) == []
        deployment.forget(worker)


async def test_an_engine_death_moves_streams_to_another_worker(start: Any) -> None:
    flags = ("--migration-limit", "3", "--router-mode", "round-robin")
    with start(SLOW, workers=2, frontend_flags=flags) as deployment:
        running = [asyncio.create_task(whole(deployment, max_tokens=100)) for _ in range(4)]
        await asyncio.sleep(0.7)
        worker = deployment.workers[0]
        os.kill(engine_pid(worker.pid), signal.SIGKILL)
        endings = await asyncio.gather(*running)
        assert [ending.finish_reason for ending in endings] == ["length"] * 4
        assert await asyncio.to_thread(worker.wait, 5)
        deployment.forget(worker)


def test_a_killed_worker_takes_its_engine_process_along(
    start: Any, left_behind: LeftBehind
) -> None:
    with start() as deployment:
        worker = deployment.workers[0]
        engine = engine_pid(worker.pid)
        worker.kill()
        assert ended(engine, seconds=2)
        assert left_behind(deployment) == []
        deployment.forget(worker)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_worker_ends_at_once_when_asked(start: Any, number: signal.Signals) -> None:
    with start() as deployment:
        worker = deployment.workers[0]
        os.kill(worker.pid, number)
        assert worker.wait(3)
        assert worker.returncode == 0
        deployment.forget(worker)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_still_loads_ends_at_once_when_asked(
    start: Any, left_behind: LeftBehind, number: signal.Signals
) -> None:
    deployment = start({"start_seconds": 60})
    with pytest.raises(ProgramExited) as exited, Stopper(deployment, number):
        deployment.start()
    said = f"stopped by {number.name} before the engine was ready"
    assert exited.value.program.log().splitlines()[-1] == f"dynamo.tokenspeed: {said}"
    assert exited.value.program.returncode == 0
    assert "Traceback" not in deployment.logs()["worker-0"]
    assert left_behind(deployment) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_still_imports_ends_at_once_when_asked(
    dynamo: DynamoEnvironment, number: signal.Signals
) -> None:
    command = [dynamo.python, "-m", "dynamo.tokenspeed", "--model", str(ROOT / "recipes/tiny-kimi")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as worker:
        maps = Path(f"/proc/{worker.pid}/maps")
        deadline = time.monotonic() + 20
        while "dynamo/_core" not in maps.read_text() and time.monotonic() < deadline:
            time.sleep(0.002)
        worker.send_signal(number)
        _, stderr = worker.communicate(timeout=20)
    assert worker.returncode == 0, stderr
    assert stderr.splitlines()[-1].startswith(f"dynamo.tokenspeed: stopped by {number.name} before")
