# SPDX-License-Identifier: MIT
"""The random numbers of sampling: a pure function of (seed, position).

SplitMix64 used as a counter-based generator: Steele, Lea and Flood, "Fast splittable pseudorandom
number generators" (OOPSLA 2014), figure 16, with its finalizer `mix64` (Stafford's variant 13).
The n-th output of a stream whose state starts at s is mix64(s + n * GAMMA), so any position is
reached at once. The state starts at mix64(seed), which separates the streams of nearby seeds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1 = np.uint64(0xBF58476D1CE4E5B9)
_FACTOR_2 = np.uint64(0x94D049BB133111EB)


def uniform(
    seed: npt.NDArray[np.uint64], position: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), multiples of 2**-53, one per (seed, position) pair, elementwise.

    seed: [n] uint64. position: [n] any integer type, >= 0; the index in its sequence of the token
    that the number chooses.
    """
    bits = _mix64(_mix64(seed) + (position.astype(np.uint64) + np.uint64(1)) * _GAMMA)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix64(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _FACTOR_1
    z = (z ^ (z >> np.uint64(27))) * _FACTOR_2
    return z ^ (z >> np.uint64(31))
