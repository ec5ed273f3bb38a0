# SPDX-License-Identifier: MIT
"""A step's plan as one piece of memory, and the inputs of a forward pass that are made of it.

The arena is int32 words: a header, then arrays, each where a word of the header says. Everything
that a step tells the device is in it, so that one upload brings it there. `pack_step` writes one; a
scheduler that keeps to the layout writes it itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int32]

COUNTS = 8
"""Words of the header that are a `StepCounts`; as many follow, the places of the arrays."""
HEADER = 16


class StepCounts(NamedTuple):
    """The first words of the header."""

    words: int  # of the whole arena
    rows: int
    absorbed_rows: int  # the first ones
    tokens: int  # of all rows
    absorbed_tokens: int
    sampling_rows: int
    admissions: int
    patches: int


class StepArrays(NamedTuple):
    """The arrays, in the order in which they lie."""

    row_slot: IntArray  # [rows]
    row_start: IntArray  # [rows], tokens of the row's sequence before this step's
    row_tokens: IntArray  # [rows]
    row_samples: IntArray  # [rows], 0: no token is sampled after the row's last one
    admitted_slot: IntArray  # [admissions]
    admitted_offset: IntArray  # [admissions + 1], into admitted_tokens
    admitted_tokens: IntArray  # the histories
    page_patch: IntArray  # [patches, 3]: slot, column, page


def step_counts(arena: IntArray) -> StepCounts:
    return StepCounts(*arena[:COUNTS].tolist())


def pack_step(arena: IntArray, arrays: StepArrays, absorbed_rows: int) -> int:
    """Write an arena; returns its words."""
    end = HEADER
    for place, array in enumerate(arrays, COUNTS):
        arena[place] = end
        arena[end : end + array.size] = array.reshape(-1)
        end += array.size
    tokens = arrays.row_tokens
    arena[:COUNTS] = StepCounts(
        words=end,
        rows=len(arrays.row_slot),
        absorbed_rows=absorbed_rows,
        tokens=int(tokens.sum()),
        absorbed_tokens=int(tokens[:absorbed_rows].sum()),
        sampling_rows=int(np.count_nonzero(arrays.row_samples)),
        admissions=len(arrays.admitted_slot),
        patches=len(arrays.page_patch),
    )
    return end


@dataclass(frozen=True, slots=True)
class StepInputs:
    """Memory for what a forward pass reads, allocated once; a step fills the first entries.

    For T tokens, the first A of them absorbed, in E expanded rows, S of all rows sampling.
    """

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64, of each token in its sequence
    cache_index: Tensor  # [T] int64, page * page_size + offset where its KV goes
    token_slots: Tensor  # [T] int32
    absorbed_context: (
        Tensor  # [A] int32, cached tokens that each absorbed one sees, itself included
    )
    expanded_slots: Tensor  # [E] int32
    query_start: Tensor  # [E+1] int32, from the first expanded token
    expanded_context: Tensor  # [E] int32, the row's tokens including those of this step
    sample_index: Tensor  # [S] int64, the token after which one is sampled
    sample_slots: Tensor  # [S] int64
    sample_positions: Tensor  # [S] int64, of the token to be sampled

    @classmethod
    def empty(cls, max_tokens: int, max_rows: int, device: torch.device | str) -> StepInputs:
        def words(size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.int32, device=device)

        def longs(size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.int64, device=device)

        return cls(
            token_ids=longs(max_tokens),
            positions=longs(max_tokens),
            cache_index=longs(max_tokens),
            token_slots=words(max_tokens),
            absorbed_context=words(max_tokens),
            expanded_slots=words(max_rows),
            query_start=words(max_rows + 1),
            expanded_context=words(max_rows),
            sample_index=longs(max_rows),
            sample_slots=longs(max_rows),
            sample_positions=longs(max_rows),
        )
