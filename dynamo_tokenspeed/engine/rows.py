# SPDX-License-Identifier: MIT
"""Rows of a step by themselves: what `Plan` says of them, for some of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import ts_scheduler
from ts_kernels import StepArrays, pack_step

IntArray = npt.NDArray[np.int32]


class Rows(NamedTuple):
    """The fields of a plan that computing its rows reads."""

    num_absorbed_rows: int
    row_slot: IntArray
    row_start: IntArray
    row_tokens: IntArray
    row_samples: npt.NDArray[np.uint8]

    @property
    def num_rows(self) -> int:
        return len(self.row_slot)

    def pack(self, arena: IntArray) -> int:
        """Write an arena of these rows, with nothing to patch; returns its words."""
        none = np.empty(0, np.int32)
        offset = np.zeros(1, np.int32)
        rows = (self.row_slot, self.row_start, self.row_tokens, self.row_samples.astype(np.int32))
        return pack_step(arena, StepArrays(*rows, none, offset, none, none), self.num_absorbed_rows)

    @classmethod
    def of(cls, plan: ts_scheduler.Plan, row: int) -> Rows:
        """One row of a plan."""
        this = slice(row, row + 1)
        return cls(
            num_absorbed_rows=int(row < plan.num_absorbed_rows),
            row_slot=plan.row_slot[this],
            row_start=plan.row_start[this],
            row_tokens=plan.row_tokens[this],
            row_samples=plan.row_samples[this],
        )

    @classmethod
    def one_token(cls) -> Rows:
        """The first token of slot 0, with its logits."""
        zero, one = np.zeros(1, np.int32), np.ones(1, np.int32)
        return cls(1, zero, zero, one, np.ones(1, np.uint8))
