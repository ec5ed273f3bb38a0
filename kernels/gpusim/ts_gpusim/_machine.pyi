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
    ) -> None: ...

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
) -> dict[str, Any]: ...
