# SPDX-License-Identifier: MIT
"""What the worker counts, and that docs/worker.md names all of it and nothing else."""

from __future__ import annotations

import re
from array import array
from pathlib import Path

import pytest
from dynamo._core import Context
from dynamo.llm.exceptions import EngineShutdown

from dynamo_tokenspeed.protocol import FinishReason, Stats, StepOutput
from dynamo_tokenspeed.worker.args import parse_args
from dynamo_tokenspeed.worker.llm_engine import TokenSpeedEngine
from dynamo_tokenspeed.worker.metrics import End, RequestMetrics, WorkerMetrics
from dynamo_tokenspeed.worker.streams import Stream, StreamTable

PAGE = (Path(__file__).resolve().parents[2] / "docs/worker.md").read_text()


class Worker:
    """The streams of a worker and what it reports."""

    def __init__(self) -> None:
        self.metrics = RequestMetrics()
        self.streams = StreamTable(self.metrics)
        self.stats = Stats()

    def open(self, request_id: int, prompt_tokens: int = 10) -> Stream:
        stream = Stream(request_id, prompt_tokens)
        self.streams.add(stream)
        return stream

    def step(self, request_id: int, finish: FinishReason, cached_tokens: int = 0) -> None:
        self.streams.deliver(
            StepOutput(
                request_ids=array("Q", [request_id]).tobytes(),
                token_ids=array("i", [7]).tobytes(),
                finish_reasons=bytes([finish]),
                cached_tokens=array("i", [cached_tokens]).tobytes(),
                stats=self.stats,
            )
        )

    def value(self, name: str, **labels: str) -> float | None:
        registry = WorkerMetrics(self.metrics, lambda: self.stats).registry
        return registry.get_sample_value(f"tokenspeed_{name}", labels)

    def ends(self) -> dict[End, float]:
        """How many requests ended in each way, those ways that nobody took left out."""
        counts = {
            end: self.value("requests_finished_total", finished_reason=end.value) for end in End
        }
        return {end: count for end, count in counts.items() if count}


@pytest.fixture
def worker() -> Worker:
    return Worker()


def exposed() -> set[str]:
    """The names that a user of the endpoint sees, a histogram's without its suffixes."""
    metrics = WorkerMetrics(RequestMetrics(), Stats).registry.collect()
    return {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in metrics
        if metric.samples
    }


def test_the_page_tables_every_metric_and_no_other() -> None:
    tabled = re.findall(r"^\| `(tokenspeed_\w+)` \|", PAGE, re.MULTILINE)

    assert sorted(tabled) == sorted(exposed())


def test_the_page_names_no_metric_that_there_is_not() -> None:
    named = set(re.findall(r"\btokenspeed_[a-z0-9_]+(?![\w.])", PAGE))

    assert named - exposed() == set()


def test_the_page_tables_every_way_in_which_a_request_ends() -> None:
    table = PAGE.partition("| `finished_reason` | the request |\n")[2].partition("\n\n")[0]
    tabled = [
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])
    ]

    assert sorted(tabled) == sorted(End)


def test_a_request_is_counted_with_its_first_token(worker: Worker) -> None:
    worker.open(1, prompt_tokens=40)
    worker.open(2, prompt_tokens=40)  # has none

    worker.step(1, FinishReason.NONE, cached_tokens=32)
    worker.step(1, FinishReason.LENGTH, cached_tokens=32)

    assert worker.value("prompt_tokens_total") == 40
    assert worker.value("cached_prompt_tokens_total") == 32
    assert worker.value("generated_tokens_total") == 2
    assert worker.value("time_to_first_token_seconds_count") == 1


async def test_a_finished_request_is_in_every_histogram_of_requests(worker: Worker) -> None:
    stream = worker.open(1, prompt_tokens=40)
    worker.streams.admit([1])
    worker.step(1, FinishReason.NONE)
    await stream.next_chunk()  # what the consumer has taken counts too
    worker.step(1, FinishReason.NONE)
    worker.step(1, FinishReason.STOP)

    assert worker.value("e2e_request_latency_seconds_count") == 1
    assert worker.value("request_time_per_output_token_seconds_count") == 1
    assert worker.value("request_queue_time_seconds_count") == 1
    assert worker.value("request_prompt_tokens_sum") == 40
    assert worker.value("request_generation_tokens_sum") == 3


def test_the_times_of_a_request_lie_within_each_other(worker: Worker) -> None:
    worker.open(1)
    worker.streams.admit([1])
    for finish in (FinishReason.NONE, FinishReason.NONE, FinishReason.LENGTH):
        worker.step(1, finish)

    queue = worker.value("request_queue_time_seconds_sum")
    first = worker.value("time_to_first_token_seconds_sum")
    between = worker.value("inter_token_latency_seconds_sum")
    whole = worker.value("e2e_request_latency_seconds_sum")
    mean = worker.value("request_time_per_output_token_seconds_sum")
    assert queue is not None and first is not None and between is not None
    assert 0 < queue < first
    assert whole == pytest.approx(first + between)
    assert mean == pytest.approx(between / 2)


def test_one_token_has_no_time_per_token(worker: Worker) -> None:
    worker.open(1)
    worker.step(1, FinishReason.STOP)

    assert worker.value("request_time_per_output_token_seconds_count") == 0


def test_a_request_waits_once_though_it_is_admitted_again(worker: Worker) -> None:
    worker.open(1)
    worker.open(2)

    worker.streams.admit([1])
    worker.streams.admit([1, 99])  # retracted and resumed; and one that is gone

    assert worker.streams.waiting == 1
    assert worker.value("request_queue_time_seconds_count") == 1


def test_a_request_that_is_gone_waits_no_longer(worker: Worker) -> None:
    worker.streams.cancel(worker.open(1))

    worker.streams.admit([1])

    assert worker.streams.waiting == 0
    assert worker.value("request_queue_time_seconds_count") == 0


def test_every_request_ends_once(worker: Worker) -> None:
    streams = [worker.open(request_id) for request_id in range(1, 7)]

    worker.step(1, FinishReason.STOP)
    worker.step(2, FinishReason.LENGTH)
    worker.streams.fail(3, RuntimeError(), End.FAILED)
    worker.streams.fail(4, RuntimeError(), End.TIMEOUT)
    worker.streams.cancel(streams[4])
    worker.streams.fail_all(RuntimeError(), End.HANDED_ON)
    for stream in streams:  # what comes too late changes nothing
        worker.streams.cancel(stream)
        worker.streams.fail(stream.request_id, RuntimeError(), End.FAILED)

    assert worker.ends() == {
        End.STOP: 1,
        End.LENGTH: 1,
        End.FAILED: 1,
        End.TIMEOUT: 1,
        End.CANCELLED: 1,
        End.HANDED_ON: 1,
    }


async def test_a_request_that_this_worker_cannot_take_is_handed_on(worker: Worker) -> None:
    engine = TokenSpeedEngine(parse_args(["--model", "m"]))
    engine._metrics = worker.metrics

    with pytest.raises(EngineShutdown):
        await anext(engine.generate({"token_ids": [1]}, Context()))

    assert worker.ends() == {End.HANDED_ON: 1}


def test_the_caches_state_is_scraped(worker: Worker) -> None:
    worker.stats = Stats(
        pages_used=1,
        pages_cached=2,
        pages_free=1,
        host_pages_cached=5,
        prefix_query_tokens=100,
        prefix_hit_tokens=25,
    )

    assert worker.value("host_pages_cached") == 5
    assert worker.value("kv_usage_ratio") == 0.25
    assert worker.value("prefix_hit_ratio") == 0.25
