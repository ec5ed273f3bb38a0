# SPDX-License-Identifier: MIT
"""What sampling is told in tests: records, neutral unless a column is given, biases and counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ts_kernels import TokenBias

from dynamo_tokenspeed.protocol.sampling import SAMPLING_DTYPE

NEUTRAL = {"top_p": 1.0, "repetition_penalty": 1.0, "logprobs": -1}


def records(n: int, **columns: Any) -> npt.NDArray[Any]:
    """n records of the engine's own dtype; a column is one value or n of them."""
    made = np.zeros(n, SAMPLING_DTYPE)
    for name, value in {**NEUTRAL, **columns}.items():
        made[name] = np.asarray(value, SAMPLING_DTYPE[name])
    return made


def biased(rows: list[int], tokens: list[int], values: list[float]) -> TokenBias:
    return TokenBias(torch.tensor(rows), torch.tensor(tokens), torch.tensor(values))


def counted(
    histories: npt.ArrayLike, prompt: npt.ArrayLike, total: npt.ArrayLike, vocab: int
) -> torch.Tensor:
    """The counts of `Penalties`: one history [n] a slot, of which so many tokens are there."""
    rows = []
    for tokens, begin, end in zip(
        np.asarray(histories), np.asarray(prompt), np.asarray(total), strict=True
    ):
        counts = 2 * np.bincount(tokens[begin:end], minlength=vocab)
        counts[tokens[:begin]] += 1
        rows.append(counts)
    return torch.from_numpy(np.array(rows, np.int32))
