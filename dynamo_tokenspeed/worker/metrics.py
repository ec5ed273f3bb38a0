# SPDX-License-Identifier: MIT
"""The worker's Prometheus metrics.

Histograms are filled on the hot path, once per token, so they are plain lists
and a bisection (0.3 µs); the registry reads them when it is scraped.
"""

from __future__ import annotations

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

_FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_INTER_TOKEN_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03),
    *(0.05, 0.075, 0.1, 0.25, 0.5, 1, 5),
)


class Histogram:
    """Counts by upper bound, in seconds."""

    def __init__(self, name: str, help_text: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._help = help_text
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Metric:
        buckets, total = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        return HistogramMetricFamily(self._name, self._help, buckets, self._sum)


class Latencies:
    """What users feel, measured where their tokens arrive in this process."""

    def __init__(self) -> None:
        self.first_token = Histogram(
            PREFIX + "time_to_first_token_seconds",
            "From a request's arrival at this worker to its first token",
            _FIRST_TOKEN_SECONDS,
        )
        self.inter_token = Histogram(
            PREFIX + "inter_token_latency_seconds",
            "Between two tokens of one stream",
            _INTER_TOKEN_SECONDS,
        )
        self.generated_tokens = 0


class EngineMetrics:
    """A Prometheus collector over the engine's latest `Stats` and our latencies."""

    def __init__(self, latencies: Latencies, stats: Callable[[], Stats]) -> None:
        self._latencies = latencies
        self._stats = stats
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        floor = stats.floor
        for name, value, text in (
            ("requests_running", stats.running, "Requests that hold a slot"),
            ("requests_waiting", stats.waiting, "Requests that wait for a slot or for pages"),
            ("requests_loading", stats.loading, "Requests whose pages come from the host tier"),
            ("kv_pages_used", stats.pages_used, "KV pages referenced by a running request"),
            ("kv_pages_cached", stats.pages_cached, "KV pages only the prefix cache holds"),
            ("kv_pages_free", stats.pages_free, "KV pages nobody holds"),
            ("user_tps_p1", floor.attained_p1, "Tokens/s that 99 of 100 measured users had"),
            ("user_tps_p50", floor.attained_p50, "Tokens/s of the median measured user"),
        ):
            yield GaugeMetricFamily(PREFIX + name, text, value)
        for name, value, text in (
            ("prefix_query_tokens", stats.prefix_query_tokens, "Prompt tokens looked up"),
            ("prefix_hit_tokens", stats.prefix_hit_tokens, "Prompt tokens found cached"),
            ("retractions", stats.retractions, "Requests whose pages were taken back"),
            ("steps", stats.steps, "Forward passes"),
            ("users_measured", floor.users, "Finished requests whose speed was measured"),
            ("held_prefill_tokens", floor.held_prefill_tokens, "Prefill put off for the floor"),
            ("held_admissions", floor.held_admissions, "Steps that admitted nobody for the floor"),
            ("generated_tokens", self._latencies.generated_tokens, "Tokens streamed out"),
        ):
            yield CounterMetricFamily(PREFIX + name, text, value)
        yield self._latencies.first_token.collect()
        yield self._latencies.inter_token.collect()
