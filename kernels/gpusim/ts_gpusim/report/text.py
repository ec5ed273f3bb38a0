# SPDX-License-Identifier: MIT
"""Numbers of a launch as lines of text."""

from __future__ import annotations

from ts_gpusim.counters import Counters


def counted(counters: Counters) -> list[str]:
    """A line for each kind of work that there was, and for global memory."""
    lines = [f"{counted_noun(counters.instructions, 'instruction')} of warps"]
    for kind, mma in counters.mma.items():
        instructions = counted_noun(mma.instructions, f"{kind} MMA")
        lines.append(f"{instructions}: {with_unit(mma.flops, 'FLOP')}")
    for memory, traffic in _traffic(counters).items():
        said = [f"{with_unit(size, 'B')} {what}" for what, size in traffic.items() if size]
        if said or memory == "global memory":
            lines.append(f"{memory}: {', '.join(said) or 'untouched'}")
    if counters.tma_requests:
        lines.append(counted_noun(counters.tma_requests, "TMA request"))
    return lines


def _traffic(counters: Counters) -> dict[str, dict[str, int]]:
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


def counted_noun(number: int, what: str) -> str:
    """`1 launch`, `2 launches`."""
    plural = "es" if what.endswith("ch") else "s"
    return f"{number:,} {what}{'' if number == 1 else plural}"


def with_unit(number: float, unit: str) -> str:
    """Three digits, with a decimal prefix."""
    for prefix in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return f"{number:,.3g} T{unit}"
