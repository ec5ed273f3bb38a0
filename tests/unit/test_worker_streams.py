# SPDX-License-Identifier: MIT
"""One step message in, one delta per stream out."""

from __future__ import annotations

import asyncio
from array import array

import pytest

from dynamo_tokenspeed.protocol import FloorReport, Stats, StepOutput
from dynamo_tokenspeed.protocol.messages import TokenLogprobs
from dynamo_tokenspeed.worker.metrics import End, RequestMetrics, WorkerMetrics
from dynamo_tokenspeed.worker.streams import Stream, StreamTable


def step(
    *entries: tuple[int, int, int], cached: int = 0, logprobs: list[TokenLogprobs] | None = None
) -> StepOutput:
    """`entries` are (request id, token, finish reason)."""
    return StepOutput(
        request_ids=array("Q", [entry[0] for entry in entries]).tobytes(),
        token_ids=array("i", [entry[1] for entry in entries]).tobytes(),
        finish_reasons=bytes(entry[2] for entry in entries),
        cached_tokens=array("i", [cached] * len(entries)).tobytes(),
        stats=Stats(),
        logprobs=logprobs or [],
    )


@pytest.fixture
def table() -> StreamTable:
    return StreamTable(RequestMetrics())


def opened(table: StreamTable, request_id: int, **options: object) -> Stream:
    stream = Stream(request_id, prompt_tokens=10, **options)  # type: ignore[arg-type]
    table.add(stream)
    return stream


async def test_each_stream_gets_its_own_token(table: StreamTable) -> None:
    one, two = opened(table, 1), opened(table, 2)
    table.deliver(step((2, 22, 0), (1, 11, 0)))
    assert (await one.next_chunk())["token_ids"] == [11]
    assert (await two.next_chunk())["token_ids"] == [22]


async def test_a_late_consumer_gets_several_tokens_in_one_chunk(table: StreamTable) -> None:
    stream = opened(table, 1)
    table.deliver(step((1, 5, 0)))
    table.deliver(step((1, 6, 0)))
    assert (await stream.next_chunk())["token_ids"] == [5, 6]


async def test_a_waiting_consumer_wakes_with_the_token(table: StreamTable) -> None:
    stream = opened(table, 1)
    waiting = asyncio.ensure_future(stream.next_chunk())
    await asyncio.sleep(0)
    table.deliver(step((1, 5, 0)))
    assert (await waiting)["token_ids"] == [5]


async def test_what_is_known_at_the_first_token_goes_with_it_and_not_with_every_other(
    table: StreamTable,
) -> None:
    stream = opened(table, 1)
    table.deliver(step((1, 5, 0), cached=8))
    first = await stream.next_chunk()
    assert first["completion_usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 1,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    assert first["engine_data"] == {"kv_cache_hit": {"prompt_tokens": 10, "reused_tokens": 8}}
    assert "finish_reason" not in first
    table.deliver(step((1, 6, 0), cached=8))
    assert await stream.next_chunk() == {"token_ids": [6], "index": 0}


async def test_the_last_chunk_carries_reason_usage_and_cache_hit(table: StreamTable) -> None:
    stream = opened(table, 1)
    table.deliver(step((1, 5, 0), cached=8))
    table.deliver(step((1, 6, 2), cached=8))
    chunk = await stream.next_chunk()
    assert chunk["finish_reason"] == "length"
    assert chunk["completion_usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    assert chunk["engine_data"] == {"kv_cache_hit": {"prompt_tokens": 10, "reused_tokens": 8}}
    assert "stop_reason" not in chunk


async def test_a_stop_token_the_user_asked_for_is_the_stop_reason(table: StreamTable) -> None:
    stream = opened(table, 1, stop_token_ids=frozenset({9}))
    table.deliver(step((1, 9, 1)))
    chunk = await stream.next_chunk()
    assert (chunk["finish_reason"], chunk["stop_reason"]) == ("stop", 9)


async def test_an_eos_has_no_stop_reason(table: StreamTable) -> None:
    stream = opened(table, 1)
    table.deliver(step((1, 0, 1)))
    assert "stop_reason" not in await stream.next_chunk()


async def test_logprobs_are_one_per_token_with_ranked_alternatives(table: StreamTable) -> None:
    stream = opened(table, 2, wants_logprobs=True)
    other = opened(table, 1)
    records = [TokenLogprobs(1, -0.5, [270, 271], [-0.5, -1.5])]
    table.deliver(step((1, 1, 0), (2, 270, 0), logprobs=records))
    chunk = await stream.next_chunk()
    assert chunk["log_probs"] == [-0.5]
    assert chunk["top_logprobs"] == [
        [
            {"rank": 1, "token_id": 270, "token": None, "logprob": -0.5},
            {"rank": 2, "token_id": 271, "token": None, "logprob": -1.5},
        ]
    ]
    assert "log_probs" not in await other.next_chunk()


async def test_tokens_of_a_stream_that_is_gone_are_dropped(table: StreamTable) -> None:
    stream = opened(table, 1)
    assert table.cancel(stream)
    table.deliver(step((1, 5, 0)))
    assert stream.tokens == []


async def test_a_cancelled_stream_ends_with_that_reason(table: StreamTable) -> None:
    stream = opened(table, 1)
    waiting = asyncio.ensure_future(stream.next_chunk())
    await asyncio.sleep(0)
    table.cancel(stream)
    assert (await waiting)["finish_reason"] == "cancelled"


async def test_a_stream_that_ended_cannot_be_cancelled(table: StreamTable) -> None:
    stream = opened(table, 1)
    table.deliver(step((1, 5, 2)))
    assert not table.cancel(stream)
    assert (await stream.next_chunk())["finish_reason"] == "length"


async def test_a_failed_stream_gives_its_tokens_and_then_the_error(table: StreamTable) -> None:
    stream = opened(table, 1)
    table.deliver(step((1, 5, 0)))
    table.fail_all(RuntimeError("gone"), End.HANDED_ON)
    assert (await stream.next_chunk())["token_ids"] == [5]
    with pytest.raises(RuntimeError, match="gone"):
        await stream.next_chunk()


async def test_all_closed_waits_for_the_last_stream(table: StreamTable) -> None:
    opened(table, 1)
    opened(table, 2)
    closed = asyncio.ensure_future(table.all_closed())
    table.deliver(step((1, 5, 2)))
    await asyncio.sleep(0.01)
    assert not closed.done()
    table.deliver(step((2, 5, 1)))
    await asyncio.wait_for(closed, 1)


async def test_latencies_are_scraped_as_prometheus_histograms(table: StreamTable) -> None:
    metrics = RequestMetrics()
    table = StreamTable(metrics)
    opened(table, 1)
    table.deliver(step((1, 5, 0)))
    table.deliver(step((1, 6, 2)))
    registry = WorkerMetrics(metrics, lambda: Stats(running=3, steps=9)).registry
    value = registry.get_sample_value
    assert value("tokenspeed_time_to_first_token_seconds_count") == 1
    assert value("tokenspeed_inter_token_latency_seconds_count") == 1
    assert value("tokenspeed_requests_running") == 3
    assert value("tokenspeed_steps_total") == 9
    assert value("tokenspeed_generated_tokens_total") == 2


def test_the_floors_report_is_scraped() -> None:
    floor = FloorReport(users=8, attained_p1=71.5, attained_p50=90.0, held_prefill_tokens=64)
    registry = WorkerMetrics(RequestMetrics(), lambda: Stats(floor=floor)).registry
    value = registry.get_sample_value
    assert value("tokenspeed_users_measured_total") == 8
    assert value("tokenspeed_user_tps_p1") == 71.5
    assert value("tokenspeed_user_tps_p50") == 90.0
    assert value("tokenspeed_held_prefill_tokens_total") == 64
