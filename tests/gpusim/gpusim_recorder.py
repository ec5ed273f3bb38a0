# SPDX-License-Identifier: MIT
"""A software GPU whose machine only writes down what it was given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ts_gpusim


class Recorder:
    """In the machine's place."""

    def __init__(self) -> None:
        self.launches: list[ts_gpusim.Launch] = []
        self.names: list[list[str]] = []

    def __call__(self, launch: ts_gpusim.Launch, memory: ts_gpusim.MemoryMap) -> None:
        self.launches.append(launch)
        self.names.append([allocation.name for allocation in memory])


@pytest.fixture
def machine() -> Recorder:
    return Recorder()


@pytest.fixture
def gpu(machine: Recorder) -> Iterator[ts_gpusim.Device]:
    with ts_gpusim.device("sm_100a", sms=20, execute=machine) as gpu:
        yield gpu
