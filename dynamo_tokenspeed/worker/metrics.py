# SPDX-License-Identifier: MIT
"""The worker's Prometheus metrics (docs/worker.md says what each is for).

Histograms are filled on the hot path, once per token, so they are plain lists
and a bisection (0.3 µs); the registry reads them when it is scraped.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from dynamo_tokenspeed.protocol import Stats

PREFIX = "tokenspeed_"

_WAIT_SECONDS = (
    *(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    *(120, 300, 600),
)
_TOKEN_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03),
    *(0.05, 0.075, 0.1, 0.25, 0.5, 1, 5),
)
_TOKENS = tuple(2**i for i in range(0, 19, 2))  # 1 to 256 Ki


class End(enum.StrEnum):
    """How a request ended at this worker. Every request that comes here ends in one of these."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"  # the client left, or the frontend found a stop string
    TIMEOUT = "timeout"
    FAILED = "failed"  # it could not be computed
    REFUSED = "refused"  # a fault of the request
    QUEUE_FULL = "queue_full"
    HANDED_ON = "handed_on"  # this worker leaves: the frontend may go on with another one


class Histogram:
    """Counts by upper bound."""

    def __init__(self, name: str, help_text: str, bounds: tuple[float, ...]) -> None:
        self._name = PREFIX + name
        self._help = help_text
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Metric:
        buckets, total = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        return HistogramMetricFamily(self._name, self._help, buckets, self._sum)


class RequestMetrics:
    """What requests brought, got and felt, measured where their tokens arrive in this process."""

    def __init__(self) -> None:
        self.queue = Histogram(
            "request_queue_time_seconds", "From arrival at this worker to a slot", _WAIT_SECONDS
        )
        self.first_token = Histogram(
            "time_to_first_token_seconds",
            "From a request's arrival at this worker to its first token",
            _WAIT_SECONDS,
        )
        self.inter_token = Histogram(
            "inter_token_latency_seconds", "Between two tokens of one stream", _TOKEN_SECONDS
        )
        self.per_token = Histogram(
            "request_time_per_output_token_seconds",
            "A finished request's mean time between two of its tokens",
            _TOKEN_SECONDS,
        )
        self.latency = Histogram(
            "e2e_request_latency_seconds",
            "From a finished request's arrival to its last token",
            _WAIT_SECONDS,
        )
        self.prompt = Histogram(
            "request_prompt_tokens", "Tokens of a finished request's prompt", _TOKENS
        )
        self.generation = Histogram(
            "request_generation_tokens", "Tokens of a finished request's answer", _TOKENS
        )
        self.prompt_tokens = 0
        self.cached_prompt_tokens = 0
        self.generated_tokens = 0
        self._ends = dict.fromkeys(End, 0)

    def begin(self, seconds: float, prompt_tokens: int, cached_tokens: int) -> None:
        """A request has its first token, so many seconds after it came."""
        self.first_token.observe(seconds)
        self.prompt_tokens += prompt_tokens
        self.cached_prompt_tokens += cached_tokens

    def finish(
        self, seconds: float, decode_seconds: float, prompt_tokens: int, generated_tokens: int
    ) -> None:
        """A request has its last token: since it came, and since its first token."""
        self.latency.observe(seconds)
        self.prompt.observe(prompt_tokens)
        self.generation.observe(generated_tokens)
        if generated_tokens > 1:
            self.per_token.observe(decode_seconds / (generated_tokens - 1))

    def end(self, end: End) -> None:
        self._ends[end] += 1

    def collect(self) -> Iterator[Metric]:
        ends = CounterMetricFamily(
            PREFIX + "requests_finished", "Requests by how they ended", labels=["finished_reason"]
        )
        for end, count in self._ends.items():
            ends.add_metric([end], count)
        yield ends
        yield from _counters(
            ("prompt_tokens", self.prompt_tokens, "Prompt tokens of requests with a first token"),
            ("cached_prompt_tokens", self.cached_prompt_tokens, "Of those, found cached"),
            ("generated_tokens", self.generated_tokens, "Tokens streamed out"),
        )
        for histogram in (self.queue, self.first_token, self.inter_token, self.per_token):
            yield histogram.collect()
        for histogram in (self.latency, self.prompt, self.generation):
            yield histogram.collect()


class WorkerMetrics:
    """A Prometheus collector over the engine's latest `Stats` and what requests felt."""

    def __init__(self, requests: RequestMetrics, stats: Callable[[], Stats]) -> None:
        self._requests = requests
        self._stats = stats
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        floor = stats.floor
        pages = stats.pages_used + stats.pages_cached + stats.pages_free
        queries = stats.prefix_query_tokens
        for name, value, text in (
            ("requests_running", stats.running, "Requests that hold a slot"),
            ("requests_waiting", stats.waiting, "Requests that wait for a slot or for pages"),
            ("requests_loading", stats.loading, "Requests whose pages come from the host tier"),
            ("kv_pages_used", stats.pages_used, "KV pages referenced by a running request"),
            ("kv_pages_cached", stats.pages_cached, "KV pages only the prefix cache holds"),
            ("kv_pages_free", stats.pages_free, "KV pages nobody holds"),
            ("kv_usage_ratio", _ratio(stats.pages_used, pages), "Used KV pages among all"),
            ("host_pages_cached", stats.host_pages_cached, "KV pages in the host tier"),
            ("prefix_hit_ratio", _ratio(stats.prefix_hit_tokens, queries), "Hits since the start"),
            ("user_tps_p1", floor.attained_p1, "Tokens/s that 99 of 100 measured users had"),
            ("user_tps_p50", floor.attained_p50, "Tokens/s of the median measured user"),
        ):
            yield GaugeMetricFamily(PREFIX + name, text, value)
        yield from _counters(
            ("prefix_query_tokens", stats.prefix_query_tokens, "Prompt tokens looked up"),
            ("prefix_hit_tokens", stats.prefix_hit_tokens, "Prompt tokens found cached"),
            ("retractions", stats.retractions, "Requests whose pages were taken back"),
            ("steps", stats.steps, "Forward passes"),
            ("users_measured", floor.users, "Finished requests whose speed was measured"),
            ("held_prefill_tokens", floor.held_prefill_tokens, "Prefill put off for the floor"),
            ("held_admissions", floor.held_admissions, "Steps that admitted nobody for the floor"),
        )
        yield from self._requests.collect()


def _counters(*counters: tuple[str, float, str]) -> Iterator[Metric]:
    for name, value, text in counters:
        yield CounterMetricFamily(PREFIX + name, text, value)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
