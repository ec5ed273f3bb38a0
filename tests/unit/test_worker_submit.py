# SPDX-License-Identifier: MIT
"""What goes wrong while a request is submitted leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from dynamo._core import Context

from dynamo_tokenspeed.worker.args import parse_args
from dynamo_tokenspeed.worker.llm_engine import TokenSpeedEngine
from dynamo_tokenspeed.worker.model_directory import resolve_model

ROOT = Path(__file__).resolve().parents[2]
GOOD: dict[str, Any] = {"token_ids": [1, 2, 3], "stop_conditions": {"max_tokens": 2}}


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TokenSpeedEngine]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"), prepend=os.pathsep)
    monkeypatch.setenv("STAND_IN", json.dumps({"vocab_size": 4096}))
    args = await resolve_model(parse_args(["--model", str(ROOT / "recipes/tiny-kimi")]))
    started = TokenSpeedEngine(args, engine_module="stand_in_engine")
    await started.start(1)
    yield started
    await started.cleanup()


async def answer(engine: TokenSpeedEngine, request: dict[str, Any]) -> list[int]:
    return [
        token async for chunk in engine.generate(request, Context()) for token in chunk["token_ids"]
    ]


@pytest.mark.parametrize(
    "request_",
    [
        GOOD | {"token_ids": []},
        GOOD | {"routing": {"priority": 2**70}},
        GOOD | {"routing": {"cache_salt": "\ud800"}},  # no UTF-8, so it cannot be encoded
        GOOD | {"sampling_options": {"seed": 2**70, "temperature": "hot"}},
        GOOD | {"stop_conditions": "x"},
        GOOD | {"stop_conditions": {"stop_token_ids": 5}},
        GOOD | {"routing": "fast"},
    ],
    ids=["refused", "priority", "not encodable", "words", "no object", "no list", "no mapping"],
)
async def test_an_exception_leaves_no_stream_behind(
    engine: TokenSpeedEngine, request_: dict[str, Any]
) -> None:
    with pytest.raises(Exception):  # noqa: B017 - whatever it is
        await answer(engine, request_)

    assert await engine.is_quiescent()
    assert await answer(engine, GOOD) == [3, 4]
    await asyncio.wait_for(engine.cleanup(), 5)  # a stream left behind would be waited for


async def test_a_request_that_comes_after_the_end_leaves_no_stream_behind(
    engine: TokenSpeedEngine,
) -> None:
    await engine.cleanup()

    with pytest.raises(Exception, match="shutting down"):
        await answer(engine, GOOD)

    assert await engine.is_quiescent()


async def test_an_engine_process_that_is_not_there_leaves_no_stream_behind(
    engine: TokenSpeedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_send", lambda message: False)
        with pytest.raises(Exception, match="not there"):
            await answer(engine, GOOD)

    assert await engine.is_quiescent()


async def test_before_the_first_request_every_page_is_reported_free(
    engine: TokenSpeedEngine,
) -> None:
    assert engine._capacity is not None
    assert engine._snapshots.stats.pages_free == engine._capacity.num_pages > 0
