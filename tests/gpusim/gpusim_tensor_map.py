# SPDX-License-Identifier: MIT
"""Tensor maps as cuTensorMapEncodeTiled writes them, for PTX that no host library launches."""

from __future__ import annotations

import numpy as np

# As the encoder has them: tf32 is f32 with another bit set.
ELEMENT_TYPES = {
    "u8": 0, "u16": 1, "u32": 2, "s32": 3, "u64": 4, "s64": 5, "f16": 6, "f32": 7,
    "f32.ftz": 8, "f64": 9, "bf16": 10, "tf32": 7 | 1 << 9, "tf32.ftz": 8 | 1 << 9,
    "16u4_align8": 11, "16u4_align16": 12, "16u6_align16": 13,
}  # fmt: skip
SWIZZLES = {16: 0, 32: 1, 64: 2, 128: 3}  # by the bytes that one spans; 16: none


def tensor_map(tensor: np.ndarray, type_: str, box: tuple[int, ...], swizzle: int = 16) -> bytes:
    """`box`: elements along each axis of `tensor`, whose last axis is contiguous.

    Of elements of 4 and 6 bits `tensor` has the bytes.
    """
    words = np.zeros(32, np.uint32)
    rank = tensor.ndim
    words[0:2] = np.array([tensor.ctypes.data], np.uint64).view(np.uint32)
    words[2] = 2 | (rank - 1) << 4 | ELEMENT_TYPES[type_] << 7 | SWIZZLES[swizzle] << 13
    sizes, strides, boxes = tensor.shape[::-1], tensor.strides[::-1], box[::-1]
    width = {"u4": 4, "u6": 6}.get(type_[2:4], 8)
    sizes = (sizes[0] * 8 // width, *sizes[1:])
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
