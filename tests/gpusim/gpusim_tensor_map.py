# SPDX-License-Identifier: MIT
"""Tensor maps as cuTensorMapEncodeTiled writes them, for PTX that no host library launches."""

from __future__ import annotations

import numpy as np

# PTX ISA 9.7.9.26 "tensormap.replace", values of .elemtype.
ELEMENT_TYPES = {
    "u8": 0, "u16": 1, "u32": 2, "s32": 3, "u64": 4, "s64": 5, "f16": 6, "f32": 7,
    "f32.ftz": 8, "f64": 9, "bf16": 10, "tf32": 11, "tf32.ftz": 12,
}  # fmt: skip
SWIZZLES = {16: 0, 32: 1, 64: 2, 128: 3}  # by the bytes that one spans; 16: none


def tensor_map(tensor: np.ndarray, type_: str, box: tuple[int, ...], swizzle: int = 16) -> bytes:
    """`box`: elements along each axis of `tensor`, whose last axis is contiguous."""
    words = np.zeros(32, np.uint32)
    rank = tensor.ndim
    words[0:2] = np.array([tensor.ctypes.data], np.uint64).view(np.uint32)
    words[2] = 2 | (rank - 1) << 4 | ELEMENT_TYPES[type_] << 7 | SWIZZLES[swizzle] << 13
    sizes, strides, boxes = tensor.shape[::-1], tensor.strides[::-1], box[::-1]
    for axis in range(rank):
        words[8 + axis] = sizes[axis] - 1
    words[13] = boxes[0] - 1 << 24
    for axis in range(1, rank):
        assert strides[axis] % 16 == 0, f"strides are multiples of 16 bytes, not {strides}"
        words[2 + axis] = strides[axis] >> 4 & 0xFFFFFFFF
        words[7] |= (strides[axis] >> 36) << 4 * (axis - 1)
        words[14] |= boxes[axis] - 1 << 8 * (axis - 1)
    return words.tobytes()


def swizzled(content: np.ndarray, swizzle: int) -> np.ndarray:
    """Bytes of a box as they lie in shared memory from an address that is a multiple of 1024.

    The 16-byte pieces of each span trade places by the number of the 128-byte line.
    """
    pieces = content.reshape(-1, 16)
    number = np.arange(len(pieces))
    placed = np.empty_like(pieces)
    placed[number ^ (number // 8 % (swizzle // 16))] = pieces
    return placed.reshape(-1)
