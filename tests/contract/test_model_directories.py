# SPDX-License-Identifier: MIT
"""What passes the door, Dynamo's real frontend serves: no worker is healthy and useless."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from dynamo_environments import ROOT, DynamoEnvironment
from model_directories import SERVED, Case

from dynamo_tokenspeed.launch.deployment import Deployment
from dynamo_tokenspeed.launch.dynamo_programs import FrontendCommand, WorkerCommand

AT_ONCE = 10
SECONDS = 20.0
BATCHES = [SERVED[first : first + AT_ONCE] for first in range(0, len(SERVED), AT_ONCE)]


@pytest.mark.parametrize("cases", BATCHES, ids=range(len(BATCHES)))
async def test_what_passes_the_door_is_served(
    dynamo: DynamoEnvironment, tmp_path: Path, cases: list[Case]
) -> None:
    names = [f"case-{number}" for number in range(len(cases))]
    workers = [
        worker(name, case, tmp_path, dynamo) for name, case in zip(names, cases, strict=True)
    ]
    frontend = FrontendCommand(python=dynamo.python)
    with Deployment(workers, frontend) as deployment:
        answers = await asyncio.gather(*map(ask, [deployment] * len(cases), names, cases))

    assert dict(zip([case.name for case in cases], answers, strict=True)) == {
        case.name: 200 for case in cases
    }


def worker(name: str, case: Case, folder: Path, dynamo: DynamoEnvironment) -> WorkerCommand:
    model = case.write(folder / name)
    path = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return WorkerCommand(
        argv=[
            *("-m", "dynamo.tokenspeed", "--model", str(model), "--served-model-name", name),
            *("--endpoint", f"dyn://dynamo.{name}.generate", *case.flags),
        ],
        env={
            "TS_ENGINE_MODULE": "stand_in_engine",
            "STAND_IN": '{"vocab_size": 4096}',
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        },
        name=name,
        python=dynamo.python,
    )


async def ask(deployment: Deployment, model: str, case: Case) -> Any:
    """200, or what is wrong. The frontend lists a model a moment after its worker serves."""
    what: dict[str, Any] = {"prompt": "hello"}
    path = "completions"
    if case.chat:
        what, path = {"messages": [{"role": "user", "content": "hello"}]}, "chat/completions"
    body = {"model": model, "max_tokens": 2, **what}
    deadline = time.monotonic() + SECONDS
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.post(f"{deployment.url}/v1/{path}", json=body) as response:
                text = await response.text()
            if response.status == 200:
                return 200
            if response.status != 404 or time.monotonic() > deadline:
                return text
            await asyncio.sleep(0.1)
