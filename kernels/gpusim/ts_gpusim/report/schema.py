# SPDX-License-Identifier: MIT
"""What `run --json` writes and `report` reads.

Times are cycles of the cost model (ts_gpusim/cost_model.py), which is no claim about time. A number
in the place of an instruction is its index in `Recording.instructions`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ts_gpusim.counters import Counters

VERSION = 1
Dim3 = tuple[int, int, int]

ACTIVITIES = ("compute", "memory", "tensor memory", "copy", "MMA", "synchronise", "wait")
ENGINES = ("TMA", "cp.async", "CTA to CTA", "tensor cores")


class Instruction(msgspec.Struct, array_like=True, frozen=True):
    """One that was executed, or that a wait or an operation names."""

    line: int  # of the PTX text
    text: str  # shortened
    file: int  # in Recording.files; -1: not known
    source_line: int
    executed: list[int]  # by warps of each role


class Role(msgspec.Struct, frozen=True):
    """Warps that execute the same code. Numbers are sums over these warps of all CTAs."""

    name: str
    warps: list[int]
    instructions: int
    busy: dict[str, int]  # cycles, by the kind of instruction
    waiting: int  # cycles


class Wait(msgspec.Struct, frozen=True):
    """Where warps of a role waited, for whom; only where the model says that they had to."""

    role: int
    instruction: int
    barrier: str
    ended_by: int  # the instruction, or what it began
    times: int
    cycles: int
    longest: int


class Span(msgspec.Struct, array_like=True, frozen=True):
    """What a warp did; of several pieces, what the longest of them is."""

    begin: int
    end: int
    activity: int  # in ACTIVITIES
    instruction: int
    ended_by: int  # of a wait; else -1
    barrier: str  # of a wait; else empty
    waited: int  # cycles, in all pieces
    pieces: int


class Operation(msgspec.Struct, array_like=True, frozen=True):
    """An engine works on it from `begin` to `free`; it is complete at `end`."""

    issued: int
    begin: int
    free: int
    end: int
    instruction: int
    warp: int
    amount: int  # bytes; of tensor cores, FLOP of bf16 that take as long
    operations: int  # that are drawn as one


class Engine(msgspec.Struct, frozen=True):
    name: str
    operations: list[Operation]


class CtaTimeline(msgspec.Struct, frozen=True):
    """Of one CTA, from the begin of its cluster."""

    index: Dim3
    rank: int  # in its cluster
    begin: int
    end: int
    warps: list[list[Span]]
    engines: list[Engine]  # those that did something
    shortened: str  # how spans were merged; empty: they were not


class Recording(msgspec.Struct, frozen=True):
    """`engine_busy`: of all CTAs' cycles, the share in which an engine worked."""

    cycles: int  # of the CTA that took longest
    cta_cycles: int  # of all CTAs
    ctas: int
    engine_busy: dict[str, float]
    files: list[str]
    code: dict[str, str]  # by "file:line", with the file's number
    instructions: list[Instruction]
    roles: list[Role]
    waits: list[Wait]
    timelines: list[CtaTimeline]


class Problem(msgspec.Struct, frozen=True):
    kind: str
    sentence: str
    times: int


class LaunchRecord(msgspec.Struct, frozen=True):
    """`seed`: None for the recorded run, in the order of model time. `counters`: None if the launch
    ended in a fault."""

    kernel: str
    grid: Dim3
    block: Dim3
    cluster: Dim3
    dynamic_shared_bytes: int
    seed: int | None
    seconds: float  # that the simulation took
    counters: Counters | None
    problems: list[Problem]
    recording: Recording | None


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    script: str
    arch: str
    sms: int
    launches: list[LaunchRecord]


class _Versioned(msgspec.Struct):
    version: int


def read(path: Path) -> RunFile:
    """ValueError, one sentence, for a file that is not one of ours."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    try:
        version = msgspec.json.decode(text, type=_Versioned).version
        if version == VERSION:
            return msgspec.json.decode(text, type=RunFile)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} was not written by `run --json`: {error}") from error
    raise ValueError(
        f"{path} has version {version} of the format, but this ts_gpusim reads version {VERSION}: "
        "write it again with `run --json`"
    )


def write(path: Path, run: RunFile) -> None:
    path.write_bytes(msgspec.json.encode(run) + b"\n")
