# SPDX-License-Identifier: MIT
"""Per-request token constraints that few requests have: logit bias and min_tokens.

They vary in size, so they do not fit the flat sampling record. Only requests
that asked for one cost anything here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import ts_scheduler

from dynamo_tokenspeed.protocol import Submit


class TokenConstraint(NamedTuple):
    bias: dict[int, float]  # token id → added to its logit
    min_tokens: int
    stop_ids: list[int]  # not sampled before min_tokens


class SparseLogits(NamedTuple):
    """Changes to logits as triples: `logits[row, token] += value`."""

    row: npt.NDArray[np.int64]
    token: npt.NDArray[np.int64]
    value: npt.NDArray[np.float32]


class TokenConstraints:
    """Constraints by request, and by slot once the request has one.

    Slots belong to the thread that runs the steps. Requests are also remembered and forgotten by
    the step loop: one operation on a dictionary each, and a request is forgotten only when nobody
    will read its tokens any more.
    """

    def __init__(self) -> None:
        self._by_request: dict[int, TokenConstraint] = {}
        self._by_slot: dict[int, TokenConstraint] = {}

    def remember(self, request: Submit) -> None:
        eos = [] if request.ignore_eos else request.eos_token_ids
        stop_ids = [*eos, *request.stop_token_ids] if request.min_tokens > 0 else []
        if request.logit_bias or stop_ids:
            self._by_request[request.request_id] = TokenConstraint(
                request.logit_bias, request.min_tokens, stop_ids
            )

    def forget(self, request_id: int) -> None:
        self._by_request.pop(request_id, None)

    def forget_finished(self, output: ts_scheduler.Output) -> None:
        if self._by_request:
            for request_id in output.request[output.finish != 0].tolist():
                self.forget(request_id)

    def take_slots(self, requests: Sequence[int], slots: Sequence[int]) -> None:
        """These requests now hold these slots."""
        if not self._by_request and not self._by_slot:
            return
        for request, slot in zip(requests, slots, strict=True):
            constraint = self._by_request.get(request)
            if constraint is None:
                self._by_slot.pop(slot, None)
            else:
                self._by_slot[slot] = constraint

    def sparse_logits(
        self, slots: npt.NDArray[np.int32], generated: npt.NDArray[np.int32]
    ) -> SparseLogits | None:
        """What to add to the logits of these rows, or None when nothing.

        `generated` counts the tokens each row has generated so far.
        """
        if not self._by_slot:
            return None
        row: list[int] = []
        token: list[int] = []
        value: list[float] = []
        for index, slot in enumerate(slots.tolist()):
            constraint = self._by_slot.get(slot)
            if constraint is None:
                continue
            for token_id, bias in constraint.bias.items():
                row.append(index)
                token.append(token_id)
                value.append(bias)
            if generated[index] < constraint.min_tokens:
                for token_id in constraint.stop_ids:
                    row.append(index)
                    token.append(token_id)
                    value.append(-np.inf)
        if not row:
            return None
        return SparseLogits(
            np.array(row, np.int64), np.array(token, np.int64), np.array(value, np.float32)
        )
