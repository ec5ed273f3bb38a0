# SPDX-License-Identifier: MIT
"""What a launch did, in numbers: as machine/counters.h counts it."""

from __future__ import annotations

from typing import Any

import msgspec


class MmaCount(msgspec.Struct, frozen=True):
    """Of one kind. A wgmma is one instruction of four warps."""

    instructions: int
    flops: int  # a multiplication and an addition are two


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes are those that instructions name, not those that caches and lines move.

    `global_`: global memory without parameters, constants and local memory. `shared_`: the CTA's
    own. `distributed_`: shared memory of another CTA of the cluster. `tensor_`: tensor memory.
    `_loaded`, `_stored`, `_atomic`: by ld and tcgen05.ld, by st and tcgen05.st, by atom and red.
    """

    instructions: int  # of PTX, each once for a warp
    global_loaded: int
    global_stored: int
    global_atomic: int
    global_copied_in: int  # by cp.async, bulk and tensor copies; a multicast is read once
    global_copied_out: int  # by copies and their reductions
    shared_loaded: int
    shared_stored: int
    shared_atomic: int
    shared_copied_in: int  # a multicast is written in every CTA
    shared_copied_out: int
    shared_mma: int  # operands that tensor cores read
    distributed_loaded: int
    distributed_stored: int
    distributed_atomic: int
    distributed_copied: int  # from CTA to CTA
    tensor_loaded: int
    tensor_stored: int
    tensor_copied_in: int  # by tcgen05.cp
    tensor_mma_read: int  # A, where it is there, and D, where it is accumulated
    tensor_mma_written: int
    tma_requests: int  # bulk and tensor copies and reductions
    mma: dict[str, MmaCount]  # by kind, such as wgmma.bf16 or tcgen05.f16

    @classmethod
    def of(cls, counted: dict[str, Any]) -> Counters:
        """From the compiled machine's."""
        mma = {kind: MmaCount(*numbers) for kind, numbers in counted["mma"].items()}
        return cls(**{**counted, "mma": mma})

    @property
    def mma_instructions(self) -> int:
        return sum(count.instructions for count in self.mma.values())

    @property
    def mma_flops(self) -> int:
        return sum(count.flops for count in self.mma.values())
