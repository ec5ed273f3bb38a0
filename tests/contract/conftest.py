# SPDX-License-Identifier: MIT
"""Our worker under each Dynamo release, over a stand-in engine process: only the worker is ours."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from dynamo_environments import NEWEST, OLDEST, ROOT, DynamoEnvironment, dynamo_environment

from dynamo_tokenspeed.launch.deployment import Deployment
from dynamo_tokenspeed.launch.dynamo_programs import FrontendCommand, WorkerCommand
from dynamo_tokenspeed.worker.engine_deaths import FOLDER

MODEL = ROOT / "recipes/tiny-kimi"  # for its tokenizer and chat template

Start = Callable[..., AbstractContextManager[Deployment]]


@pytest.fixture(scope="session", params=[NEWEST, OLDEST])
def dynamo(request: pytest.FixtureRequest) -> DynamoEnvironment:
    return dynamo_environment(request.param)


@pytest.fixture(scope="session")
def start(dynamo: DynamoEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """`start(manners, flags...)`: a frontend and workers over stand-in engines, not yet started.

    `TMPDIR` of the workers is a folder of their own (`deployment.run_dir / "tmp"`), so that
    a file that one leaves behind is found.
    """

    def deployment(
        manners: dict[str, Any] | None = None,
        *worker_flags: str,
        workers: int = 1,
        frontend_flags: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ) -> Deployment:
        run_dir = tmp_path_factory.mktemp("deployment")
        (run_dir / "tmp").mkdir()
        path = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        own = {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "TS_ENGINE_MODULE": "stand_in_engine",
            "STAND_IN": json.dumps({"vocab_size": 4096, **(manners or {})}),
            "TMPDIR": str(run_dir / "tmp"),
            **(env or {}),
        }
        argv = ["-m", "dynamo.tokenspeed", "--model", str(MODEL), "--served-model-name", "stand-in"]
        return Deployment(
            [
                WorkerCommand(
                    argv=[*argv, *worker_flags], env=own, replicas=workers, python=dynamo.python
                )
            ],
            FrontendCommand(flags=frontend_flags, python=dynamo.python),
            run_dir=run_dir,
        )

    return deployment


@pytest.fixture(scope="module")
def deployment(start: Start) -> Iterator[Deployment]:
    """One worker that answers at once, in KV-router mode."""
    with start(None, frontend_flags=("--router-mode", "kv")) as running:
        yield running
        running.check()


@pytest.fixture
def left_behind(start: Start) -> Callable[[Deployment], list[str]]:
    """The names of what workers left in their `TMPDIR`."""

    def names(deployment: Deployment) -> list[str]:
        found = [path.name for path in Path(deployment.run_dir / "tmp").iterdir()]
        return [name for name in found if name != FOLDER]  # what others shall read stays

    return names
