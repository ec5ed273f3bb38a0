# SPDX-License-Identifier: MIT
"""Rows of a step by themselves: what `Plan` says of them, for some of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import ts_scheduler

IntArray = npt.NDArray[np.int32]


class Rows(NamedTuple):
    """The fields of a plan that computing its rows reads."""

    num_absorbed_rows: int
    num_tokens: int
    row_slot: IntArray
    row_start: IntArray
    row_tokens: IntArray
    row_samples: npt.NDArray[np.uint8]

    @property
    def num_rows(self) -> int:
        return len(self.row_slot)

    @classmethod
    def of(cls, plan: ts_scheduler.Plan, row: int) -> Rows:
        """One row of a plan."""
        this = slice(row, row + 1)
        return cls(
            num_absorbed_rows=int(row < plan.num_absorbed_rows),
            num_tokens=int(plan.row_tokens[row]),
            row_slot=plan.row_slot[this],
            row_start=plan.row_start[this],
            row_tokens=plan.row_tokens[this],
            row_samples=plan.row_samples[this],
        )

    @classmethod
    def one_token(cls) -> Rows:
        """The first token of slot 0, with its logits."""
        zero, one = np.zeros(1, np.int32), np.ones(1, np.int32)
        return cls(1, 1, zero, zero, one, np.ones(1, np.uint8))
