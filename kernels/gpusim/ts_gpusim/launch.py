# SPDX-License-Identifier: MIT
"""One kernel launch, as the host code asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field

Dim3 = tuple[int, int, int]


@dataclass(frozen=True)
class LaunchAttributes:
    """Of cudaLaunchAttribute, those that change what a kernel may do or observe."""

    programmatic_stream_serialization: bool = False  # PDL: griddepcontrol
    cooperative: bool = False
    preferred_cluster: Dim3 | None = None  # Launch.cluster is then the fallback
    others: dict[int, bytes] = field(default_factory=dict)  # by id; values of 64 bytes


@dataclass(frozen=True)
class Launch:
    """`parameters[i]`: the bytes of the kernel's parameter i, a 128-byte tensor map included."""

    kernel: str
    ptx: str  # the module that has the kernel; names are unique in it only
    grid: Dim3  # in blocks
    block: Dim3  # in threads
    cluster: Dim3  # in blocks; (1, 1, 1) without
    shared_bytes: int  # dynamic, beyond the kernel's own variables
    attributes: LaunchAttributes
    parameters: list[bytes]
    resident_blocks: int | None = None  # that the device holds at a time; None: all

    def __str__(self) -> str:
        cluster = "" if self.cluster == (1, 1, 1) else f", cluster {self.cluster}"
        return f"{self.kernel}, grid {self.grid}, block {self.block}{cluster}"
