# SPDX-License-Identifier: MIT
"""What a step's rows ask of sampling, grouped so that a row pays only for what it asks for.

`SamplingRows.of` reads the parameters on the host, where the engine keeps them, and brings to the
device only the columns of the rows that need them. A group that no row needs is None, and its code
does not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ts_kernels.uniform import uniform

GREEDY_TEMPERATURE = 1e-5
"""A temperature below this is greedy: dividing by it would overflow fp32 logits."""

IntArray = npt.NDArray[np.integer]
SparseLogits = tuple[IntArray, IntArray, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class TokenBias:
    """`logits[row, token] += value`; -inf bans a token (min_tokens, forbidden ids)."""

    row: Tensor  # [n] int64
    token: Tensor  # [n] int64
    value: Tensor  # [n] fp32


@dataclass(frozen=True, slots=True)
class Penalties:
    """The rows with a penalty, and where their history lies in the token table."""

    row: Tensor  # [n] int64
    presence: Tensor  # [n] fp32, 0: off
    frequency: Tensor  # [n] fp32, 0: off
    repetition: Tensor  # [n] fp32, 1: off
    token_table: Tensor  # [slots, max_model_len] int32
    slot: Tensor  # [n] int64
    prompt_len: Tensor  # [n] int64
    total_len: Tensor  # [n] int64, prompt and generated
    longest: int  # max of total_len


@dataclass(frozen=True, slots=True)
class Truncation:
    """The rows, among those that draw, that cut the tail of the distribution."""

    row: Tensor  # [n] int64, into Draw.row
    top_k: Tensor  # [n] int64, 0: off
    top_p: Tensor  # [n] fp32, 1: off
    min_p: Tensor  # [n] fp32, 0: off
    largest_top_k: int  # 0: no row has one
    has_top_p: bool
    has_min_p: bool


@dataclass(frozen=True, slots=True)
class Draw:
    """The rows that draw; the others take the most likely token."""

    row: Tensor  # [n] int64
    temperature: Tensor  # [n] fp32
    uniform: Tensor  # [n] fp64 in [0, 1)
    truncation: Truncation | None


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """Everything `sample` needs beside the logits. `SamplingRows()`: all rows greedy."""

    bias: TokenBias | None = None
    penalties: Penalties | None = None
    draw: Draw | None = None

    @classmethod
    def of(
        cls,
        records: npt.NDArray[Any],
        position: IntArray,
        *,
        device: torch.device | str = "cpu",
        bias: SparseLogits | None = None,
        token_table: Tensor | None = None,
        slot: IntArray | None = None,
        prompt_len: IntArray | None = None,
    ) -> SamplingRows:
        """Groups the rows of a step by what they ask for.

        records: [R] structured, with the fields seed (uint64), temperature, top_p, min_p,
        presence_penalty, frequency_penalty, repetition_penalty (fp32) and top_k (int32).
        position: [R], the index in its sequence of the token to be chosen, which is also the
        number of tokens before it. bias: (row, token, value), host arrays of one length.
        token_table: [slots, max_model_len] int32 on the device; slot, prompt_len: [R] on the
        host. The last three may be left out when no record has a penalty; ValueError otherwise.
        """
        to = _Mover(device)
        return cls(
            bias=_bias(bias, to),
            penalties=_penalties(records, position, token_table, slot, prompt_len, to),
            draw=_draw(records, position, to),
        )


class _Mover:
    """Host arrays to device tensors of a given dtype."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)

    def __call__(self, array: npt.ArrayLike, dtype: npt.DTypeLike) -> Tensor:
        host = torch.from_numpy(np.ascontiguousarray(array, dtype))
        return host if self._device.type == "cpu" else host.to(self._device, non_blocking=True)


def _bias(bias: SparseLogits | None, to: _Mover) -> TokenBias | None:
    if bias is None or len(bias[0]) == 0:
        return None
    row, token, value = bias
    return TokenBias(to(row, np.int64), to(token, np.int64), to(value, np.float32))


def _penalties(
    records: npt.NDArray[Any],
    position: IntArray,
    token_table: Tensor | None,
    slot: IntArray | None,
    prompt_len: IntArray | None,
    to: _Mover,
) -> Penalties | None:
    wanted = (
        (records["presence_penalty"] != 0)
        | (records["frequency_penalty"] != 0)
        | (records["repetition_penalty"] != 1)
    )
    if not wanted.any():
        return None
    if token_table is None or slot is None or prompt_len is None:
        raise ValueError("a penalty needs the token history: token_table, slot and prompt_len")
    row = wanted.nonzero()[0]
    mine, total = records[row], position[row]
    return Penalties(
        row=to(row, np.int64),
        presence=to(mine["presence_penalty"], np.float32),
        frequency=to(mine["frequency_penalty"], np.float32),
        repetition=to(mine["repetition_penalty"], np.float32),
        token_table=token_table,
        slot=to(slot[row], np.int64),
        prompt_len=to(prompt_len[row], np.int64),
        total_len=to(total, np.int64),
        longest=int(total.max()),
    )


def _draw(records: npt.NDArray[Any], position: IntArray, to: _Mover) -> Draw | None:
    row = (records["temperature"] >= GREEDY_TEMPERATURE).nonzero()[0]
    if len(row) == 0:
        return None
    mine = records[row]
    return Draw(
        row=to(row, np.int64),
        temperature=to(mine["temperature"], np.float32),
        uniform=to(uniform(mine["seed"], position[row]), np.float64),
        truncation=_truncation(mine, to),
    )


def _truncation(records: npt.NDArray[Any], to: _Mover) -> Truncation | None:
    top_k = np.maximum(records["top_k"], 0)
    top_p, min_p = records["top_p"], records["min_p"]
    row = ((top_k > 0) | (top_p < 1) | (min_p > 0)).nonzero()[0]
    if len(row) == 0:
        return None
    top_k, top_p, min_p = top_k[row], top_p[row], min_p[row]
    return Truncation(
        row=to(row, np.int64),
        top_k=to(top_k, np.int64),
        top_p=to(top_p, np.float32),
        min_p=to(min_p, np.float32),
        largest_top_k=int(top_k.max()),
        has_top_p=bool((top_p < 1).any()),
        has_min_p=bool((min_p > 0).any()),
    )
