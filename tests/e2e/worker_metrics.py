# SPDX-License-Identifier: MIT
"""A worker's own numbers, read from its metrics page, and waiting for them to change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from dynamo_tokenspeed.launch.dynamo_programs import Worker


def metric(worker: Worker, name: str) -> float:
    """The value of `tokenspeed_<name>`."""
    for line in worker.metrics().splitlines():
        full_name, _, value = line.rpartition(" ")
        if full_name.partition("{")[0] in (f"tokenspeed_{name}", f"tokenspeed_{name}_total"):
            return float(value)
    raise AssertionError(f"{worker.name} reports no tokenspeed_{name}")


def total(workers: Iterable[Worker], name: str) -> float:
    return sum(metric(worker, name) for worker in workers)


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether `condition` comes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def ended(worker: Worker, reason: str) -> float:
    """How many requests ended so."""
    for line in worker.metrics().splitlines():
        full_name, _, value = line.rpartition(" ")
        if (
            full_name.startswith("tokenspeed_requests_finished_total{")
            and f'finished_reason="{reason}"' in full_name
        ):
            return float(value)
    raise AssertionError(f"{worker.name} does not count requests that end with {reason}")
