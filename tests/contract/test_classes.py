# SPDX-License-Identifier: MIT
"""Our engine against the classes of each Dynamo release."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dynamo_environments import ROOT, DynamoEnvironment

from dynamo_tokenspeed.model.registry import FAMILIES
from dynamo_tokenspeed.worker.model_directory import ARCHITECTURES

FACTS = Path(__file__).with_name("facts.py")


@pytest.fixture(scope="module")
def facts(dynamo: DynamoEnvironment) -> dict[str, Any]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("DYN_")}
    done = subprocess.run(
        [dynamo.python, str(FACTS), str(ROOT / "recipes/tiny-kimi")],
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_environment_has_the_release_it_says(
    facts: dict[str, Any], dynamo: DynamoEnvironment
) -> None:
    assert facts["version"] == dynamo.version


def test_every_required_method_is_there_with_dynamos_parameters(facts: dict[str, Any]) -> None:
    assert facts["is_engine"]
    assert facts["missing"] == []
    assert facts["differing"] == []
    assert {"start", "generate", "abort", "cleanup", "from_args"} <= set(facts["overridden"])


def test_the_worker_config_says_what_the_command_line_said(facts: dict[str, Any]) -> None:
    config = facts["worker_config"]
    assert config["served_model_name"] == "name"
    assert config["tool_call_parser"] == "hermes"
    assert config["discovery_backend"] == "file"
    assert config["request_plane"] == "tcp"
    assert config["event_plane"] == "zmq"
    assert config["enable_kv_routing"] is True


def test_structural_tags_are_advertised_off(facts: dict[str, Any]) -> None:
    config = facts["worker_config"]
    assert config.get("structural_tag") is None
    assert config.get("structural_tag_mode", "off") == "off"


def test_fields_a_release_does_not_know_are_left_out(facts: dict[str, Any]) -> None:
    registration = facts["registration"]
    assert registration["model"] == "m"
    assert registration["llm"]["context_length"] == 5


def test_the_worker_accepts_exactly_the_architectures_that_the_engine_loads() -> None:
    assert set(ARCHITECTURES) == set(FAMILIES)
