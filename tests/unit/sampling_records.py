# SPDX-License-Identifier: MIT
"""Sampling records for tests: neutral unless a column is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dynamo_tokenspeed.protocol.sampling import SAMPLING_DTYPE

NEUTRAL = {"top_p": 1.0, "repetition_penalty": 1.0, "logprobs": -1}


def records(n: int, **columns: Any) -> npt.NDArray[Any]:
    """n records of the engine's own dtype; a column is one value or n of them."""
    made = np.zeros(n, SAMPLING_DTYPE)
    for name, value in {**NEUTRAL, **columns}.items():
        made[name] = np.asarray(value, SAMPLING_DTYPE[name])
    return made
