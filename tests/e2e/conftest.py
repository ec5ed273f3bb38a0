# SPDX-License-Identifier: MIT
"""The deployments that end-to-end tests share. They start once and are always stopped."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from dynamo_environments import NEWEST, OLDEST, dynamo_environment
from openai_client import connect
from tiny_kimi import RECIPE, WORKER_FLAGS

from dynamo_tokenspeed.launch.deployment import Deployment


@pytest.fixture(scope="session")
def deployment() -> Iterator[Deployment]:
    """The shipped recipe: a frontend in KV-router mode and two workers."""
    with Deployment.from_recipe(RECIPE, worker_flags=WORKER_FLAGS) as running:
        yield running
        running.check()  # nothing that a test did has ended a program


@pytest.fixture(scope="session")
def oldest_dynamo() -> Iterator[Deployment]:
    """The same worker under the oldest Dynamo, one replica."""
    python = dynamo_environment(OLDEST).python
    with Deployment.from_recipe(
        RECIPE, workers=1, worker_flags=WORKER_FLAGS, python=python
    ) as running:
        yield running
        running.check()


@pytest.fixture(scope="session", params=["deployment", "oldest_dynamo"], ids=[NEWEST, OLDEST])
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
