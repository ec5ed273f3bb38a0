# SPDX-License-Identifier: MIT
"""Sampling parameters: as a message, and as the flat record that rides in a plan."""

from __future__ import annotations

import msgspec
import numpy as np

NO_LOGPROBS = -1
NO_TOP_K = 0

SAMPLING_DTYPE = np.dtype(
    [
        ("seed", "<u8"),  # key of the request's random stream; the position is the counter
        ("temperature", "<f4"),  # 0: greedy
        ("top_p", "<f4"),  # 1: off
        ("min_p", "<f4"),  # 0: off
        ("presence_penalty", "<f4"),  # 0: off
        ("frequency_penalty", "<f4"),  # 0: off
        ("repetition_penalty", "<f4"),  # 1: off
        ("top_k", "<i4"),  # 0: off
        ("logprobs", "<i4"),  # -1: none; k >= 0: the chosen token's and the k most likely
    ]
)
"""One row of the engine's slot table. The scheduler carries it as opaque bytes
(`params`) from `submit` to the plan that gives the request a slot."""


class SamplingParams(msgspec.Struct, frozen=True):
    """How the next token of one request is chosen. Defaults are neutral (greedy).

    The worker validates ranges at the door and always fills in `seed` (a random
    one when the user gave none).
    """

    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = NO_TOP_K
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logprobs: int = NO_LOGPROBS

    def record(self) -> bytes:
        """The `SAMPLING_DTYPE` record of these parameters, `SAMPLING_DTYPE.itemsize` bytes."""
        row = np.zeros((), SAMPLING_DTYPE)
        for name in SAMPLING_DTYPE.names or ():
            row[name] = getattr(self, name)
        return row.tobytes()
