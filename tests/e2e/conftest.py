# SPDX-License-Identifier: MIT
"""The deployments that end-to-end tests share. They start once and are always stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from client import connect

from dynamo_tokenspeed.launch.deployment import Deployment

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes/tiny-kimi/agg.yaml"
OLDEST_DYNAMO = ROOT / ".venvs/dynamo-1.4.2/bin/python"

MAX_MODEL_LEN = 2048
PAGE_SIZE = 16
NUM_PAGES = 192  # one and a half of the longest sequences: evictions are easy to force
_PAGE_BYTES = PAGE_SIZE * 576 * 4 * 4  # latent and rope key, four layers, fp32

# fp32 and one thread each: equal tokens whatever runs beside them, on two cores.
WORKER_FLAGS = (
    *("--dtype", "float32", "--num-threads", "1"),
    *("--max-model-len", str(MAX_MODEL_LEN), "--kv-cache-memory", str(NUM_PAGES * _PAGE_BYTES)),
)


@pytest.fixture(scope="session")
def recipe() -> Path:
    return RECIPE


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    """The shipped recipe: a frontend in KV-router mode and two workers."""
    with Deployment.from_recipe(RECIPE, worker_flags=WORKER_FLAGS) as running:
        yield running
        running.check()  # nothing that a test did has ended a program


@pytest.fixture(scope="session")
def oldest_dynamo() -> Iterator[Deployment]:
    """The same worker under Dynamo 1.4.2, one replica."""
    if not OLDEST_DYNAMO.exists():
        pytest.skip(f"there is no environment with Dynamo 1.4.2 at {OLDEST_DYNAMO}")
    with Deployment.from_recipe(
        RECIPE, workers=1, worker_flags=WORKER_FLAGS, python=str(OLDEST_DYNAMO)
    ) as running:
        yield running
        running.check()


@pytest.fixture(scope="session", params=["deployment", "oldest_dynamo"], ids=["1.6.1", "1.4.2"])
def any_dynamo(request: pytest.FixtureRequest) -> Deployment:
    """Each of the Dynamo releases that we promise to work with."""
    running: Deployment = request.getfixturevalue(request.param)
    return running


@pytest.fixture(scope="session")
def client(deployment: Deployment) -> openai.OpenAI:
    return connect(deployment)


@pytest.fixture(scope="session")
def model(deployment: Deployment) -> str:
    return deployment.model
