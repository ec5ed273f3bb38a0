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


@dataclass(frozen=True, slots=True)
class TokenBias:
    """`logits[row, token] += value`; -inf bans a token (min_tokens, forbidden ids)."""

    row: Tensor  # [n] int64
    token: Tensor  # [n] int64
    value: Tensor  # [n] fp32


@dataclass(frozen=True, slots=True)
class Penalties:
    """The rows with a penalty, and where what their sequences have seen is counted.

    A count is twice how often a token was generated, plus one if it stands in the prompt.
    """

    row: Tensor  # [n] int64
    presence: Tensor  # [n] fp32, 0: off
    frequency: Tensor  # [n] fp32, 0: off
    repetition: Tensor  # [n] fp32, 1: off
    counts: Tensor  # [slots, V] int32, contiguous
    slot: Tensor  # [n] int64


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

    def all_draw(self, rows: int) -> bool:
        return sum(draw.row.shape[0] for draw in self.draws) == rows

    @classmethod
    def of(
        cls,
        records: npt.NDArray[Any],
        position: IntArray,
        *,
        device: torch.device | str = "cpu",
        bias: TokenBias | None = None,
        counts: Tensor | None = None,
        slot: IntArray | None = None,
    ) -> SamplingRows:
        """Groups the rows of a step by what they ask for.

        records: [R] structured, with the fields seed (uint64), temperature, top_p, min_p,
        presence_penalty, frequency_penalty, repetition_penalty (fp32) and top_k (int32).
        position: [R], the index in its sequence of the token to be chosen, which is also the
        number of tokens before it. bias: on the device.
        counts: [slots, V] int32 on the device (`Penalties`); slot: [R] on the host. The last two
        may be left out when no record has a penalty; ValueError otherwise.
        """
        to = _Mover(device)
        return cls(
            bias=bias,
            penalties=_penalties(records, counts, slot, to),
            draws=_draws(records, position, to),
        )


def is_greedy(records: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """[R]: the rows of these records that `SamplingRows()` serves, too."""
    greedy: npt.NDArray[np.bool_] = ~(_draws_at_all(records) | is_penalised(records))
    return greedy


def _draws_at_all(records: npt.NDArray[Any]) -> Any:
    return records["temperature"] >= GREEDY_TEMPERATURE


def is_penalised(records: npt.NDArray[Any]) -> Any:
    """[R] bool: the rows of these records that have a penalty."""
    return (
        (records["presence_penalty"] != 0)
        | (records["frequency_penalty"] != 0)
        | (records["repetition_penalty"] != 1)
    )


class _Mover:
    """Host arrays to device tensors of a given dtype."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)

    def __call__(self, array: npt.ArrayLike, dtype: npt.DTypeLike) -> Tensor:
        host = torch.from_numpy(np.ascontiguousarray(array, dtype))
        return host if self._device.type == "cpu" else host.to(self._device, non_blocking=True)


def _penalties(
    records: npt.NDArray[Any], counts: Tensor | None, slot: IntArray | None, to: _Mover
) -> Penalties | None:
    wanted = is_penalised(records)
    if not wanted.any():
        return None
    if counts is None or slot is None:
        raise ValueError("a penalty needs to know what was seen: counts and slot")
    row = wanted.nonzero()[0]
    mine = records[row]
    return Penalties(
        row=to(row, np.int64),
        presence=to(mine["presence_penalty"], np.float32),
        frequency=to(mine["frequency_penalty"], np.float32),
        repetition=to(mine["repetition_penalty"], np.float32),
        counts=counts,
        slot=to(slot[row], np.int64),
    )


def _draws(records: npt.NDArray[Any], position: IntArray, to: _Mover) -> tuple[Draw, ...]:
    draws = _draws_at_all(records)
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
