# SPDX-License-Identifier: MIT
"""Where a benchmark's numbers go: `benchmarks/results/<name>.json`, with machine and date."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, interpreter."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    flags = Path("/proc/cpuinfo").read_text()
    isa = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {name}" in flags]
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "isa": isa,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def save(name: str, numbers: dict[str, Any]) -> Path:
    """Write the numbers beside the machine they were taken on; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **numbers}, indent=1) + "\n")
    return path
