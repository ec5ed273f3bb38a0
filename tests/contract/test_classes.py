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

from dynamo_tokenspeed.model.families import FAMILIES
from dynamo_tokenspeed.worker.model_directory import ARCHITECTURES

# What becomes of each of Dynamo's own flags. A release with another one fails here.
PASSED_ON = {  # to Dynamo's Worker, or by Dynamo's own validation into the runtime's environment
    *("namespace", "endpoint", "kv_state_endpoint", "discovery_backend", "request_plane"),
    *("response_plane", "event_plane", "endpoint_types", "custom_jinja_template"),
    *("dyn_tool_call_parser", "dyn_reasoning_parser", "dyn_default_thinking_mode"),
    *("exclude_tools_when_tool_choice_none", "health_check_payload"),
    *("tcp_tls_cert_path", "tcp_tls_key_path", "tcp_tls_ca_cert_path", "tcp_tls_insecure"),
    *("tcp_tls_server_name", "tcp_tls_handshake_timeout_secs", "tcp_tls_client_cert_path"),
    *("tcp_tls_client_key_path", "tcp_tls_client_ca_cert_path"),
    *("nats_tls_ca_cert_path", "nats_tls_insecure"),
    *("nats_tls_client_cert_path", "nats_tls_client_key_path"),
}
OURS = {"engine_request_limit", "dump_config_to"}  # honoured by this worker itself
REFUSED = {  # unless they say what happens anyway
    *("fpm_trace", "connector", "output_modalities"),
    *("multimodal_embedding_cache_capacity_gb", "multimodal_embedding_cache_publisher"),
    *("media_output_fs_url", "media_output_http_url"),
    *("dyn_structural_tag", "dyn_enable_structural_tag"),
    *("dyn_structural_tag_scope", "dyn_structural_tag_schema"),
}

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


def test_every_flag_of_dynamos_is_passed_on_honoured_or_refused(facts: dict[str, Any]) -> None:
    assert set(facts["dynamos_flags"]) - PASSED_ON - OURS - REFUSED == set()


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
