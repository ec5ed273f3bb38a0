# SPDX-License-Identifier: MIT
"""Matrix operands of tensor cores in shared memory: the canonical layouts, written with numpy.

PTX ISA 9.7.15.5 (wgmma) and 9.7.16.4 (tcgen05).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gpusim_tensor_map import swizzled

STEP = 32  # bytes along K of one instruction

_WGMMA_SWIZZLE = {16: 0, 128: 1, 64: 2, 32: 3}
_TCGEN05_SWIZZLE = {16: 0, 128: 2, 64: 4, 32: 6}


@dataclass(frozen=True)
class Operand:
    """`image`: the bytes from an address that is a multiple of 1024."""

    image: np.ndarray
    starts: list[int]  # of the steps along K, in bytes
    leading: int
    stride: int
    swizzle: int

    def wgmma(self, step: int, base: int) -> int:
        return self._fields(step, base) | _WGMMA_SWIZZLE[self.swizzle] << 62

    def tcgen05(self, step: int, base: int) -> int:
        return self._fields(step, base) | 1 << 46 | _TCGEN05_SWIZZLE[self.swizzle] << 61

    def _fields(self, step: int, base: int) -> int:
        start = base + self.starts[step]
        return start >> 4 | (self.leading >> 4) << 16 | (self.stride >> 4) << 32


def operand(bits: np.ndarray, swizzle: int, mn_major: bool) -> Operand:
    """`bits`: [rows, k], unsigned. `swizzle`: bytes that one spans; 16: none."""
    rows, ks = bits.shape
    element = bits.itemsize
    row, k = np.meshgrid(np.arange(rows), np.arange(ks), indexing="ij")
    step_ks = np.arange(0, ks, STEP // element)
    if mn_major:
        byte = row * element
        spans = rows * element // swizzle
        if swizzle == 16:
            stride, leading = 128, 128 * spans
            eights = leading
        else:
            stride, leading = 8 * swizzle * spans, 8 * swizzle
            eights = stride
        across = stride if swizzle == 16 else leading
        place = byte // swizzle * across + k // 8 * eights + k % 8 * swizzle + byte % swizzle
        starts = step_ks // 8 * eights
    elif swizzle == 16:
        byte = k * element
        stride, leading = 128, 16 * rows
        place = row // 8 * stride + byte // 16 * leading + row % 8 * 16 + byte % 16
        starts = step_ks * element // 16 * leading
    else:
        byte = k * element
        stride, leading = 8 * swizzle, 16
        block = rows * swizzle
        place = byte // swizzle * block + row // 8 * stride + row % 8 * swizzle + byte % swizzle
        starts = step_ks * element // swizzle * block + step_ks * element % swizzle
    size = int(place.max()) + element
    image = np.zeros(-(-size // 1024) * 1024, np.uint8)
    for i in range(element):
        image[place + i] = bits >> np.array(8 * i, bits.dtype) & np.array(0xFF, bits.dtype)
    return Operand(swizzled(image, swizzle), starts.tolist(), leading, stride, swizzle)
