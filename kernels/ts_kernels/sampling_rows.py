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

LOWEST_LOGPROB = -9999.0
"""What stands for the logarithm of 0: reports must stay finite."""

UNSAMPLEABLE = -1
"""Stands for the token of a row that has none: its largest logit is no finite number, because every
token is banned, or the model computed a NaN or an infinity."""

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
    """How a group of drawing rows cuts the tail of its distributions."""

    top_k: Tensor  # [n] int64, 0: off
    top_p: Tensor  # [n] fp32, 1: off
    min_p: Tensor  # [n] fp32, 0: off
    has_top_k: bool
    has_top_p: bool


@dataclass(frozen=True, slots=True)
class Draw:
    """A group of rows that draw: all of them truncate, or none."""

    row: Tensor  # [n] int64
    temperature: Tensor  # [n] fp32
    uniform: Tensor  # [n] fp64 in [0, 1)
    truncation: Truncation | None


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """Everything `sample` needs beside the logits. `SamplingRows()`: all rows greedy.

    A row that is in no draw takes its most likely token.
    """

    bias: TokenBias | None = None
    penalties: Penalties | None = None
    draws: tuple[Draw, ...] = ()

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
            draws=_draws(records, position, to),
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


def _draws(records: npt.NDArray[Any], position: IntArray, to: _Mover) -> tuple[Draw, ...]:
    draws = records["temperature"] >= GREEDY_TEMPERATURE
    if not draws.any():
        return ()
    truncates = (records["top_k"] > 0) | (records["top_p"] < 1) | (records["min_p"] > 0)
    groups = ((draws & ~truncates).nonzero()[0], (draws & truncates).nonzero()[0])
    return tuple(
        Draw(
            row=to(row, np.int64),
            temperature=to(records["temperature"][row], np.float32),
            uniform=to(uniform(records["seed"][row], position[row]), np.float64),
            truncation=_truncation(records[row], to) if truncated else None,
        )
        for truncated, row in enumerate(groups)
        if len(row)
    )


def _truncation(records: npt.NDArray[Any], to: _Mover) -> Truncation:
    top_k = np.maximum(records["top_k"], 0)
    return Truncation(
        top_k=to(top_k, np.int64),
        top_p=to(records["top_p"], np.float32),
        min_p=to(records["min_p"], np.float32),
        has_top_k=bool((top_k > 0).any()),
        has_top_p=bool((records["top_p"] < 1).any()),
    )
