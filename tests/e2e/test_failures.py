# SPDX-License-Identifier: MIT
"""Processes that die or are told to stop while they serve."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
import urllib.error
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest
from dynamo_environments import ROOT
from openai_client import NO_END, connect, connect_async
from process_tree import children, command_line, is_running
from tiny_kimi import RECIPE, WORKER_FLAGS
from worker_metrics import eventually, metric

from dynamo_tokenspeed.launch import loopback
from dynamo_tokenspeed.launch.deployment import Deployment
from dynamo_tokenspeed.launch.dynamo_programs import FrontendCommand, Worker, WorkerCommand
from dynamo_tokenspeed.launch.recipe import load_recipe
from dynamo_tokenspeed.worker.engine_deaths import FOLDER

PROMPT = "import asyncio\n\n\nclass Server:\n"
NEW_TOKENS = 400


@pytest.fixture(scope="module")
def frontend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A frontend that migrates; every test brings workers of its own, and loses them."""
    run_dir = tmp_path_factory.mktemp("failures")
    (run_dir / "tmp").mkdir()
    flags = ["--router-mode", "kv", "--migration-limit", "3"]
    with Deployment((), FrontendCommand(flags=flags), run_dir=run_dir) as running:
        yield running


@pytest.fixture
def start(frontend: Deployment):
    """`start(replicas, flags..., env={})`: workers that are stopped after the test."""
    recipe = load_recipe(RECIPE)
    started: list[Worker] = []

    def workers(replicas: int, *flags: str, env: Mapping[str, str] | None = None) -> list[Worker]:
        # Dynamo forgets a worker that was killed after ten seconds.
        assert eventually(lambda: not serving_instances(frontend), 30.0)
        argv = ["-m", "dynamo.tokenspeed", *recipe.worker_argv(recipe.workers[0])]
        command = WorkerCommand(
            argv=[*argv, *WORKER_FLAGS, *flags],
            env={"TMPDIR": str(frontend.run_dir / "tmp"), **(env or {})},
            replicas=replicas,
        )
        started.extend(frontend.add_workers(command))
        return started

    yield workers
    for worker in started:
        frontend.stop_program(worker)


def serving_instances(frontend: Deployment) -> list[dict[str, Any]]:
    """Where the frontend would send a request."""
    instances = loopback.get_json(f"{frontend.url}/health")["instances"]
    return [instance for instance in instances if instance["endpoint"] == "generate"]


def request(max_tokens: int = NEW_TOKENS) -> dict[str, Any]:
    return {
        "model": "tiny-kimi",
        "prompt": PROMPT,
        "max_tokens": max_tokens,
        "temperature": 0,
        "extra_body": NO_END,
    }


async def begin(client: openai.AsyncOpenAI, max_tokens: int = NEW_TOKENS) -> AsyncIterator[str]:
    """The texts of a stream whose first one has already come."""
    stream = await client.completions.create(**request(max_tokens), stream=True)
    texts = (chunk.choices[0].text async for chunk in stream if chunk.choices)
    first = await anext(texts)

    async def all_texts() -> AsyncIterator[str]:
        yield first
        async for text in texts:
            yield text

    return all_texts()


async def read(texts: AsyncIterator[str]) -> str:
    return "".join([text async for text in texts])


def engine_of(worker: Worker) -> int:
    """The process id of a worker's engine process."""
    [engine] = [pid for pid in children(worker.pid) if "engine" in command_line(pid)]
    return engine


def left_behind(frontend: Deployment) -> list[str]:
    """What is in the temporary directory and in shared memory under the workers' names.

    Marks of the engines that have died stay: other workers read them.
    """
    shared = [path.name for path in Path("/dev/shm").iterdir() if "tokenspeed" in path.name]
    found = [path.name for path in (frontend.run_dir / "tmp").iterdir()]
    return [name for name in found if name != FOLDER] + shared


def last_line(worker: Worker) -> str:
    """Why it ended: said once, and nothing behind it."""
    log = worker.log()
    line = log.splitlines()[-1]
    assert log.count(line.removeprefix("dynamo.tokenspeed: ")) == 1
    assert line.startswith("dynamo.tokenspeed: ")
    return line


@pytest.mark.parametrize("level", ["info", "error"])
async def test_a_killed_engine_process_ends_its_worker_and_fails_its_streams(
    frontend: Deployment, start, level: str
) -> None:
    [worker] = start(1, env={"DYN_LOG": level})
    async with connect_async(frontend) as client:
        streams = [asyncio.create_task(read(await begin(client))) for _ in range(4)]
        killed = time.monotonic()

        os.kill(engine_of(worker), signal.SIGKILL)
        errors = await asyncio.gather(*streams, return_exceptions=True)

    assert all(isinstance(error, openai.APIError) for error in errors), errors
    assert await asyncio.to_thread(worker.wait, 10.0)
    assert worker.returncode == 1
    assert "killed by SIGKILL" in last_line(worker)
    assert time.monotonic() - killed < 10.0
    assert left_behind(frontend) == []


async def test_streams_of_a_killed_engine_process_go_on_elsewhere(
    frontend: Deployment, start
) -> None:
    workers = start(2)
    whole = await asyncio.to_thread(one_answer, frontend)
    async with connect_async(frontend) as client:
        stream = await begin(client)
        serving = busy(workers)

        os.kill(engine_of(serving), signal.SIGKILL)

        assert await read(stream) == whole
    assert await asyncio.to_thread(serving.wait, 10.0)
    assert serving.returncode == 1


async def test_a_request_that_two_engines_died_with_does_not_reach_a_third(
    frontend: Deployment, start
) -> None:
    workers = start(3)
    async with connect_async(frontend) as client:
        stream = asyncio.create_task(read(await begin(client, 2 * NEW_TOKENS)))
        first = busy(workers)
        os.kill(engine_of(first), signal.SIGKILL)
        assert await asyncio.to_thread(first.wait, 10.0)
        others = [worker for worker in workers if worker is not first]
        assert await asyncio.to_thread(
            eventually, lambda: any(metric(w, "requests_running") for w in others), 10.0
        )
        second = busy(others)
        os.kill(engine_of(second), signal.SIGKILL)

        with pytest.raises(openai.APIError, match="Internal server error"):
            await stream
    assert await asyncio.to_thread(second.wait, 10.0)
    [third] = [worker for worker in others if worker is not second]
    assert metric(third, "generated_tokens") == 0


@pytest.mark.parametrize("hang", ["step", "loop"])
async def test_an_engine_that_hangs_in_native_code_ends_its_worker(
    frontend: Deployment, start, hang: str
) -> None:
    env = {
        "TS_ENGINE_MODULE": "hanging_engine",
        "HANG": hang,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
        "DYN_LOG": "error",
    }
    [worker] = start(1, "--step-timeout", "2", env=env)
    engine = engine_of(worker)
    async with connect_async(frontend) as client:
        with pytest.raises(openai.APIError):
            await read(await begin(client))

    assert await asyncio.to_thread(worker.wait, 10.0)
    assert worker.returncode == 1
    sentence = last_line(worker)
    assert "has not moved for 2 s (--step-timeout 2)" in sentence
    what = "1 tokens in 1 rows, 1 of them absorbed, of request " if hang == "step" else "outside of"
    assert what in sentence
    assert not is_running(engine)
    assert left_behind(frontend) == []


async def test_streams_of_a_stopped_engine_process_go_on_elsewhere(
    frontend: Deployment, start
) -> None:
    workers = start(2, "--step-timeout", "2")
    whole = await asyncio.to_thread(one_answer, frontend)
    async with connect_async(frontend) as client:
        stream = await begin(client)
        serving = busy(workers)
        engine = engine_of(serving)

        os.kill(engine, signal.SIGSTOP)

        assert await read(stream) == whole
    assert await asyncio.to_thread(serving.wait, 10.0)
    assert serving.returncode == 1
    assert f"engine process {engine} is stopped" in last_line(serving)
    assert "--step-timeout 2" in last_line(serving)
    assert not is_running(engine)


def test_the_canary_sees_a_stopped_engine_before_any_user_does(start) -> None:
    env = {
        "DYN_HEALTH_CHECK_ENABLED": "true",
        "DYN_CANARY_WAIT_TIME": "1",
        "DYN_HEALTH_CHECK_REQUEST_TIMEOUT": "1",
    }
    [worker] = start(1, "--step-timeout", "15", env=env)
    time.sleep(4.0)  # some canaries
    assert health(worker) == 200
    assert metric(worker, "generated_tokens") == 0
    assert metric(worker, "steps") == 0
    assert metric(worker, "prefix_query_tokens") == 0
    assert "time_to_first_token_seconds_count 0" in without_labels(worker.metrics())

    os.kill(engine_of(worker), signal.SIGSTOP)

    assert eventually(lambda: health(worker) == 503, 10.0)
    assert worker.wait(40.0)
    assert worker.returncode == 1
    assert "is stopped" in last_line(worker)


def test_a_worker_whose_engine_is_stopped_ends_when_asked(start) -> None:
    [worker] = start(1)
    engine = engine_of(worker)
    os.kill(engine, signal.SIGSTOP)

    worker.terminate()

    assert worker.wait(20.0)
    assert worker.returncode == 0
    assert not is_running(engine)


def test_a_stopped_engine_process_dies_with_its_worker(frontend: Deployment, start) -> None:
    [worker] = start(1)
    engine = engine_of(worker)
    os.kill(engine, signal.SIGSTOP)

    os.kill(worker.pid, signal.SIGKILL)

    assert eventually(lambda: not is_running(engine), 5.0)
    assert left_behind(frontend) == []


async def test_sigterm_lets_running_streams_finish(frontend: Deployment, start) -> None:
    [worker] = start(1)
    engine = engine_of(worker)
    whole = await asyncio.to_thread(one_answer, frontend, 150)
    async with connect_async(frontend) as client:
        streams = [asyncio.create_task(read(await begin(client, 150))) for _ in range(8)]

        worker.terminate()
        texts = await asyncio.gather(*streams)

    assert texts == [whole] * 8
    assert await asyncio.to_thread(worker.wait, 15.0)
    assert worker.returncode == 0
    assert not is_running(engine)
    assert left_behind(frontend) == []


async def test_sigterm_with_too_little_time_hands_streams_to_another_worker(
    frontend: Deployment, start
) -> None:
    workers = start(2, "--drain-timeout", "0.1")
    whole = await asyncio.to_thread(one_answer, frontend, 2 * NEW_TOKENS)
    async with connect_async(frontend) as client:
        stream = await begin(client, 2 * NEW_TOKENS)
        serving = busy(workers)

        serving.terminate()

        assert await read(stream) == whole
    assert await asyncio.to_thread(serving.wait, 15.0)
    assert serving.returncode == 0
    assert "handing 1 streams" in serving.log()
    [other] = [worker for worker in workers if worker is not serving]
    assert metric(other, "generated_tokens") > 0


async def test_a_killed_worker_takes_its_engine_process_along(frontend: Deployment, start) -> None:
    [worker] = start(1)
    engine = engine_of(worker)
    async with connect_async(frontend) as client:
        stream = await begin(client)

        # Its return code is not asked for: the launcher would kill what is left of it.
        os.kill(worker.pid, signal.SIGKILL)

        with pytest.raises(openai.APIError):
            await read(stream)
    assert await asyncio.to_thread(eventually, lambda: not is_running(engine), 5.0)
    assert left_behind(frontend) == []


def one_answer(frontend: Deployment, max_tokens: int = NEW_TOKENS) -> str:
    """What a stream says that nothing disturbs."""
    answer = connect(frontend).completions.create(**request(max_tokens))
    return answer.choices[0].text


def health(worker: Worker) -> int:
    """The status of /health, which Kubernetes' probes read."""
    try:
        loopback.get_text(f"{worker.system_url}/health")
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def without_labels(metrics: str) -> str:
    return re.sub(r"\{[^}]*\}", "", metrics)


def busy(workers: list[Worker]) -> Worker:
    [serving] = [worker for worker in workers if metric(worker, "requests_running") == 1]
    return serving
