# SPDX-License-Identifier: MIT
"""What a worker of the shipped model takes from the machine."""

from __future__ import annotations

import re
from pathlib import Path

from process_tree import descendants

from dynamo_tokenspeed.launch.deployment import Deployment

PROMISED_BYTES = 1.5e9


def test_a_worker_and_its_engine_stay_under_the_promised_memory(deployment: Deployment) -> None:
    for worker in deployment.workers:
        processes = [worker.pid, *descendants(worker.pid)]

        assert sum(map(peak_bytes, processes)) < PROMISED_BYTES


def peak_bytes(pid: int) -> int:
    """The most that was resident at once, shared libraries included."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return int(peak[1]) * 1024
