# SPDX-License-Identifier: MIT
"""The software GPU's machine with a seed that a test may change."""

from __future__ import annotations

import ts_gpusim
from ts_gpusim.machine import execute


class Executor:
    """For `ts_gpusim.device(..., execute=)`; `launches`: those executed so far."""

    def __init__(self) -> None:
        self.seed = 0
        self.launches: list[ts_gpusim.Launch] = []

    def __call__(self, launch: ts_gpusim.Launch, memory: ts_gpusim.MemoryMap) -> None:
        self.launches.append(launch)
        execute(launch, memory, self.seed)
