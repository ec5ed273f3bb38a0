# SPDX-License-Identifier: MIT
"""Instruction by instruction, which handler of the machine executes it, and with what."""

from __future__ import annotations

from ts_gpusim.decode.arithmetic import ARITHMETIC
from ts_gpusim.decode.bits import BITS
from ts_gpusim.decode.comparisons import COMPARISONS
from ts_gpusim.decode.conversions import CONVERSIONS
from ts_gpusim.decode.fields import Decode, immediate
from ts_gpusim.decode.matrix_accesses import MATRIX_ACCESSES
from ts_gpusim.decode.memory_access import MEMORY_ACCESS
from ts_gpusim.decode.threads import THREADS

__all__ = ["FAMILIES", "immediate"]

FAMILIES: dict[str, Decode] = {
    **ARITHMETIC,
    **BITS,
    **COMPARISONS,
    **CONVERSIONS,
    **MEMORY_ACCESS,
    **MATRIX_ACCESSES,
    **THREADS,
}
