# SPDX-License-Identifier: MIT
"""The compiled machine: programs are built instruction by instruction and launched."""

from collections.abc import Sequence
from typing import Any

Dim = tuple[int, int, int]

class Program:
    def __init__(self) -> None: ...
    def add(
        self,
        handler: str,
        operands: Sequence[tuple[int, int]],
        modifiers: int,
        guard: int,
        guard_negated: bool,
        target: int,
        meets: bool,
        work: int,
        text: str,
        uses: Sequence[tuple[int, int]],
    ) -> None: ...
    def finish(
        self,
        registers: bytes,
        specials: Sequence[tuple[int, str]],
        static_shared_bytes: int,
        local_bytes: int,
        local_base: int,
        watched: Sequence[str],
        functions: Sequence[tuple[int, int]],
        most_registers: int,
    ) -> None: ...

# Amount for a cycle, latency in cycles.
Rate = tuple[int, int]

class Recorder:
    """What a launch does in the time of a cost model: machine/recorder.h."""

    def __init__(
        self,
        pipe_cycles: Sequence[int],  # by Work
        memories: Sequence[Rate],  # shared, distributed, global, tensor
        engines: Sequence[Rate],  # TMA, cp.async, CTA to CTA, tensor cores
        drawn: set[int],
        spans: int,
    ) -> None: ...
    def ctas(
        self,
    ) -> list[
        tuple[
            tuple[int, int, int],  # index
            int,  # rank in the cluster
            int,  # begin
            int,  # end
            list[int],  # busy cycles of engines
            bool,  # drawn
            list[list[tuple[int, int, int, int, int, int, int, int]]],  # spans of warps
            list[list[tuple[int, int, int, int, int, int, int, int]]],  # operations of engines
        ]
    ]: ...
    def warps(self) -> list[tuple[list[int], list[int]]]:
        """Executions by instruction, busy cycles by Work."""
    def waits(self) -> list[tuple[int, int, int, int, int, int, int]]:
        """Warp, instruction, that which ended the wait, barrier, times, cycles, longest."""

def handlers() -> list[str]: ...
def launch(
    program: Program,
    grid: Dim,
    block: Dim,
    cluster: Dim,
    dynamic_shared_bytes: int,
    parameters: int,
    allocations: Sequence[tuple[str, int, int]],
    seed: int,
    resident: int,
    recorder: Recorder | None,
    observe: bool,
    muted: int,
) -> dict[str, Any]: ...
