# SPDX-License-Identifier: MIT
"""What a client of Dynamo's frontend gets from our worker, on every Dynamo we support."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest
from chat import ask, streaming, whole
from dynamo_environments import ROOT

from dynamo_tokenspeed.launch.deployment import Deployment

TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look at a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


async def test_a_stream_ends_with_a_reason_and_its_usage(deployment: Deployment) -> None:
    ending = await whole(deployment, max_tokens=20)
    assert ending.finish_reason == "length"
    assert ending.usage is not None
    assert ending.usage["completion_tokens"] == 20
    cached = ending.usage["prompt_tokens_details"]["cached_tokens"]
    assert cached == ending.usage["prompt_tokens"] // 16 * 16  # what the stand-in says


async def test_a_unary_chat_is_whole(deployment: Deployment) -> None:
    _, answer = await ask(deployment, max_tokens=5)
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_64_streams_at_once_are_all_whole(deployment: Deployment) -> None:
    endings = await asyncio.gather(*(whole(deployment, max_tokens=32) for _ in range(64)))
    assert all(ending.usage["completion_tokens"] == 32 for ending in endings if ending.usage)
    assert [ending.finish_reason for ending in endings] == ["length"] * 64


async def test_logprobs_reach_the_client(deployment: Deployment) -> None:
    _, answer = await ask(deployment, max_tokens=3, logprobs=True, top_logprobs=2)
    content = answer["choices"][0]["logprobs"]["content"]
    assert [entry["logprob"] for entry in content] == [-0.5] * 3
    assert [len(entry["top_logprobs"]) for entry in content] == [2, 2, 2]
    assert [entry["top_logprobs"][0]["token"] for entry in content] == [
        entry["token"] for entry in content
    ]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"n": 2}, "n is 2"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"response_format": {"type": "json_object"}}, "guided decoding"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "4096"),
    ],
    ids=["n", "prompt_logprobs", "response_format", "long prompt"],
)
async def test_a_fault_of_the_request_is_a_400_with_a_sentence(
    deployment: Deployment, fields: dict[str, Any], sentence: str
) -> None:
    status, answer = await ask(deployment, **fields)
    assert status == 400
    assert sentence in str(answer)
    assert (await ask(deployment))[0] == 200  # the worker stays in routing


@pytest.mark.parametrize("parser", ["kimi_k2", "hermes"])
async def test_a_chat_that_offers_tools_is_served(start: Any, parser: str) -> None:
    """Structural tags are advertised off: 1.6 would send a constraint with every such chat."""
    with start(None, "--dyn-tool-call-parser", parser) as deployment:
        assert (await ask(deployment, tools=[TOOL]))[0] == 200
        assert (await ask(deployment, tools=[TOOL], tool_choice="none"))[0] == 200


async def test_a_client_that_leaves_ends_its_request_at_once(start: Any, tmp_path: Any) -> None:
    log = tmp_path / "messages"
    with start({"step_seconds": 0.01, "log": str(log)}) as deployment:
        async with streaming(deployment, max_tokens=2000) as events:
            await anext(events)
            await anext(events)
        deadline = time.monotonic() + 2
        while "Abort" not in log.read_text() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert log.read_text().count("Abort(request_ids=[1])") == 1


async def test_metrics_of_engine_and_router_are_on_the_system_port(deployment: Deployment) -> None:
    await ask(deployment)
    await asyncio.sleep(0.3)
    metrics = deployment.workers[0].metrics()
    assert "tokenspeed_generated_tokens_total{" in metrics
    assert "tokenspeed_time_to_first_token_seconds_bucket{" in metrics
    assert "dynamo_component_total_blocks{" in metrics
    assert "dynamo_component_kv_cache_hit_rate{" in metrics


def test_the_system_port_has_every_metric_that_the_page_tables(deployment: Deployment) -> None:
    page = (ROOT / "docs/worker.md").read_text()
    tabled = re.findall(r"^\| `(tokenspeed_\w+)` \|", page, re.MULTILINE)
    exposed = re.findall(
        r"^# TYPE (tokenspeed_\w+) ", deployment.workers[0].metrics(), re.MULTILINE
    )

    assert sorted(exposed) == sorted(tabled)


@pytest.mark.parametrize("name", ["clear_kv_blocks", "flush_cache"])
def test_a_control_reaches_the_engine(deployment: Deployment, name: str) -> None:
    answer = deployment.workers[0].control(name)
    assert answer == {"status": "ok", "done": "clear_prefix_cache"}


async def test_the_health_canary_is_answered(start: Any) -> None:
    env = {"DYN_HEALTH_CHECK_ENABLED": "true", "DYN_CANARY_WAIT_TIME": "1"}
    with start(None, env=env) as deployment:
        await asyncio.sleep(3)
        assert deployment.workers[0].serves()
        metrics = deployment.workers[0].metrics()
        assert re.search(r"^tokenspeed_generated_tokens_total\{.*\} 0\.0$", metrics, re.MULTILINE)
        assert (await ask(deployment))[0] == 200
