# SPDX-License-Identifier: MIT
"""Elements of 8, 6 and 4 bits: their values, and how 16 of them lie in memory."""

from __future__ import annotations

import numpy as np

# Exponent bits, mantissa bits.
FORMATS = {"e4m3": (4, 3), "e5m2": (5, 2), "e2m3": (2, 3), "e3m2": (3, 2), "e2m1": (2, 1)}


def bits_of(type_: str) -> int:
    return 1 + sum(FORMATS[type_])


def values(codes: np.ndarray, type_: str) -> np.ndarray:
    """Of finite codes, float64 (OCP microscaling formats, 5.3)."""
    exponent, mantissa = FORMATS[type_]
    bias = (1 << (exponent - 1)) - 1
    field = codes.astype(int) >> mantissa & ((1 << exponent) - 1)
    fraction = (codes & ((1 << mantissa) - 1)) / 2**mantissa
    magnitude = np.where(
        field == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (field - bias)
    )
    return np.where(codes >> (exponent + mantissa) & 1, -magnitude, magnitude)


def random_codes(shape: tuple[int, ...], type_: str, seed: int) -> np.ndarray:
    """Finite ones, uint8, of about the same size."""
    exponent, mantissa = FORMATS[type_]
    codes = np.random.default_rng(seed).integers(0, 1 << bits_of(type_), shape)
    if exponent < 4:
        return codes.astype(np.uint8)
    # Away from infinity, NaN and numbers that outweigh the others.
    bias = (1 << (exponent - 1)) - 1
    middle = bias - 2 + (codes >> mantissa & 3)
    return (codes & ~(((1 << exponent) - 1) << mantissa) | middle << mantissa).astype(np.uint8)


def packed(codes: np.ndarray, type_: str) -> np.ndarray:
    """One after the other without gaps, the first in the lowest bits: bytes along the last axis."""
    width = bits_of(type_)
    bits = codes[..., None] >> np.arange(width) & 1
    return np.packbits(bits.reshape(*codes.shape[:-1], -1), axis=-1, bitorder="little")


def padded(codes: np.ndarray, type_: str) -> np.ndarray:
    """Every 16 elements in 16 bytes, the padding behind them (PTX ISA 5.5.1.1.1); it is random."""
    groups = packed(codes.reshape(*codes.shape[:-1], -1, 16), type_)
    random = np.random.default_rng(9)
    padding = random.integers(0, 256, (*groups.shape[:-1], 16 - groups.shape[-1]), np.uint8)
    return np.concatenate([groups, padding], axis=-1).reshape(*codes.shape[:-1], -1)
