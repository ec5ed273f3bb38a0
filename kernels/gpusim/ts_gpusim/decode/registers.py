# SPDX-License-Identifier: MIT
"""The register file of a warp: where each register, constant and special register stands.

A register takes 32 lanes of its width, a predicate one mask; constants are registers that are
filled when the program starts.
"""

from __future__ import annotations

import struct

from ts_gpusim.ptx.syntax import Register

LANES = 32
NOWHERE = -1  # the place of `_`

# Bytes of a type; 0: a predicate.
WIDTH = {
    "pred": 0,
    "b8": 1, "u8": 1, "s8": 1,
    "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2, "e4m3x2": 2, "e5m2x2": 2,
    "e2m3x2": 2, "e3m2x2": 2, "e2m1x2": 1,
    "b32": 4, "u32": 4, "s32": 4, "f32": 4, "f16x2": 4, "bf16x2": 4, "tf32": 4,
    "u16x2": 4, "s16x2": 4,
    "b64": 8, "u64": 8, "s64": 8, "f64": 8, "f32x2": 8,
    "ue8m0x2": 2, "b128": 16,
}  # fmt: skip

_DIMENSIONS = (
    *("tid", "ntid", "ctaid", "nctaid"),
    *("clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid"),
)

# Special registers that the machine has (PTX ISA 10), and two of its own: where the block of
# parameters and the CTA's shared memory begin.
SPECIALS = {
    *(f"%{name}.{axis}" for name in _DIMENSIONS for axis in "xyz"),
    *(f"%lanemask_{which}" for which in ("eq", "le", "lt", "ge", "gt")),
    *("%laneid", "%warpid", "%smid", "%cluster_ctarank", "%cluster_nctarank"),
    *("%clock", "%clock64", "%globaltimer", "%globaltimer_lo"),
    *("%dynamic_smem_size", "%total_smem_size", "%parameters", "%shared"),
}  # fmt: skip

# Those that hold 64 bits; the others hold 32.
WIDE_SPECIALS = {"%parameters", "%clock64", "%globaltimer"}


class RegisterFile:
    """Places are byte offsets."""

    def __init__(self) -> None:
        self._image = bytearray()
        self.scope = ""  # of a function's registers: its name
        self._frame: int | None = None
        self._registers: dict[tuple[str, str], int] = {}
        self._names: dict[int, str] = {}  # the other way round
        self._constants: dict[tuple[int, int], int] = {}
        self._specials: dict[str, int] = {}

    def _allocate(self, width: int) -> int:
        place = len(self._image)
        # Aligned to what vector instructions like.
        size = -(-max(width * LANES, 4) // 64) * 64
        self._image.extend(bytes(size))
        return place

    def register(self, register: Register) -> int:
        key = (self.scope, register.name)
        if key not in self._registers:
            self._registers[key] = self._allocate(WIDTH[register.type])
        return self._registers[key]

    def frame(self) -> int:
        """Where a thread has the address of its function's local memory."""
        if self._frame is None:
            self._frame = self._allocate(8)
        return self._frame

    def name(self, place: int) -> str:
        """Of the register that stands there."""
        if len(self._names) != len(self._registers):
            self._names = {at: name for (_, name), at in self._registers.items()}
        return self._names[place]

    def temporary(self, width: int) -> int:
        return self._allocate(width)

    def constant(self, value: int, width: int) -> int:
        """`value` is taken modulo its width; of a predicate, 0 or 1 in every lane."""
        key = (value, width)
        if key not in self._constants:
            place = self._allocate(width)
            if width == 0:
                content = struct.pack("<I", 0xFFFFFFFF if value else 0)
            else:
                content = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little") * LANES
            self._image[place : place + len(content)] = content
            self._constants[key] = place
        return self._constants[key]

    def special(self, name: str) -> int:
        if name not in self._specials:
            self._specials[name] = self._allocate(8 if name in WIDE_SPECIALS else 4)
        return self._specials[name]

    @property
    def image(self) -> bytes:
        return bytes(self._image)

    @property
    def specials(self) -> list[tuple[int, str]]:
        return [(place, name) for name, place in self._specials.items()]
