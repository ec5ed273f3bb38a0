# SPDX-License-Identifier: MIT
"""The numbers of a launch, in the order in which every report shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ts_gpusim.counters import Counters
from ts_gpusim.report.schema import LaunchRecord, Recording


@dataclass(frozen=True)
class Figure:
    section: str
    name: str
    value: float
    unit: str  # B, FLOP, cycles, %; empty: a number


def figures(launch: LaunchRecord) -> list[Figure]:
    """Without those that are zero. None at all of a launch that ended in a fault at once."""
    found = []
    if launch.recording is not None:
        found += _model(launch.recording)
    if launch.counters is not None:
        found += _counters(launch.counters)
    return [figure for figure in found if figure.value]


def _model(recording: Recording) -> Iterator[Figure]:
    section = "cost model"
    yield Figure(section, "longest CTA", recording.cycles, "cycles")
    yield Figure(section, "all CTAs", recording.cta_cycles, "cycles")
    for engine, share in recording.engine_busy.items():
        yield Figure(section, f"{engine} busy", 100 * share, "%")
    for role in recording.roles:
        yield Figure("instructions of warps", role.name, role.instructions, "")
    for role in recording.roles:
        yield Figure("waiting", role.name, role.waiting, "cycles")


def _counters(counters: Counters) -> Iterator[Figure]:
    yield Figure("instructions of warps", "all", counters.instructions, "")
    for kind, mma in counters.mma.items():
        yield Figure("tensor cores", f"{kind} instructions", mma.instructions, "")
        yield Figure("tensor cores", f"{kind} operations", mma.flops, "FLOP")
    for memory, traffic in memory_traffic(counters).items():
        for what, size in traffic.items():
            yield Figure(memory, what, size, "B")
    yield Figure("copies", "TMA requests", counters.tma_requests, "")


def memory_traffic(counters: Counters) -> dict[str, dict[str, int]]:
    """Bytes, by memory and by what moved them."""
    return {
        "global memory": {
            "read": counters.global_loaded,
            "written": counters.global_stored,
            "updated": counters.global_atomic,
            "copied in": counters.global_copied_in,
            "copied out": counters.global_copied_out,
        },
        "shared memory": {
            "read": counters.shared_loaded,
            "written": counters.shared_stored,
            "updated": counters.shared_atomic,
            "copied in": counters.shared_copied_in,
            "copied out": counters.shared_copied_out,
            "read by MMAs": counters.shared_mma,
        },
        "other CTAs' shared memory": {
            "read": counters.distributed_loaded,
            "written": counters.distributed_stored,
            "updated": counters.distributed_atomic,
            "copied": counters.distributed_copied,
        },
        "tensor memory": {
            "read": counters.tensor_loaded,
            "written": counters.tensor_stored,
            "copied in": counters.tensor_copied_in,
            "read by MMAs": counters.tensor_mma_read,
            "written by MMAs": counters.tensor_mma_written,
        },
    }
