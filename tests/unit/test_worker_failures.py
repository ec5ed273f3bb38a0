# SPDX-License-Identifier: MIT
"""What a stream ends with when its request, or its engine, has failed: who may be migrated."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from dynamo.llm.exceptions import EngineShutdown, Unknown

from dynamo_tokenspeed.protocol import RequestFailed
from dynamo_tokenspeed.worker.args import parse_args
from dynamo_tokenspeed.worker.engine_deaths import EngineDeaths
from dynamo_tokenspeed.worker.llm_engine import TokenSpeedEngine
from dynamo_tokenspeed.worker.streams import Stream


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenSpeedEngine:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    engine = TokenSpeedEngine(parse_args(["--model", "m"]))

    async def stay(*_: Any) -> None:
        pass

    monkeypatch.setattr(engine, "_leave", stay)
    return engine


def opened(engine: TokenSpeedEngine, request_id: int, context_id: str) -> Stream:
    stream = Stream(request_id, prompt_tokens=3)
    engine._streams.add(stream)
    engine._by_context[context_id] = stream
    return stream


async def test_a_request_that_failed_keeps_its_tokens_and_is_not_migrated(
    engine: TokenSpeedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    stream, other = opened(engine, 1, "a"), opened(engine, 2, "b")
    stream.tokens = [5, 6]

    engine._receive(RequestFailed(1, "no token could be sampled"))

    assert (await stream.next_chunk())["token_ids"] == [5, 6]
    with pytest.raises(Unknown, match="no token could be sampled"):
        await stream.next_chunk()
    assert other in engine._streams
    assert "no token could be sampled" in caplog.text  # the frontend does not pass it on


async def test_a_request_that_lasts_too_long_is_in_the_log_by_the_frontends_name(
    engine: TokenSpeedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    stream = opened(engine, 1, "the-context-id")

    engine._end_late(stream, Unknown("no token within 30 s"))

    assert "the-context-id: no token within 30 s" in caplog.text
    with pytest.raises(Unknown):
        await stream.next_chunk()


async def test_a_request_that_has_ended_cannot_fail(engine: TokenSpeedEngine) -> None:
    engine._receive(RequestFailed(77, "too late"))


async def test_whoever_an_engine_dies_with_is_migrated_once(engine: TokenSpeedEngine) -> None:
    EngineDeaths().record(["suspect"])  # by the worker that it comes from
    suspect, innocent = opened(engine, 1, "suspect"), opened(engine, 2, "innocent")

    engine._engine_died("the engine process ended: exit code 1")

    with pytest.raises(Unknown, match="as did another one"):
        await suspect.next_chunk()
    with pytest.raises(EngineShutdown, match="exit code 1"):
        await innocent.next_chunk()
    assert not engine._streams
