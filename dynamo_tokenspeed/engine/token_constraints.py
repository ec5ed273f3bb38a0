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
import torch
import ts_scheduler
from ts_kernels import TokenBias

from dynamo_tokenspeed.protocol import Submit


class TokenConstraint(NamedTuple):
    bias: dict[int, float]  # token id → added to its logit
    min_tokens: int
    stop_ids: list[int]  # not sampled before min_tokens


class SlotConstraint:
    """One request's constraint on the device, brought there once.

    tokens, values: [n]: while fewer than `min_tokens` are generated all of them count, then the
    first `kept`, which are the bias.
    """

    def __init__(self, constraint: TokenConstraint, device: torch.device) -> None:
        bias, stop_ids = constraint.bias, constraint.stop_ids
        tokens = np.array([*bias, *stop_ids], np.int64)
        values = np.array([*bias.values(), *[-np.inf] * len(stop_ids)], np.float32)
        self.tokens = torch.from_numpy(tokens).to(device, non_blocking=True)
        self.values = torch.from_numpy(values).to(device, non_blocking=True)
        self.min_tokens = constraint.min_tokens
        self.kept = len(bias)

    def size(self, generated: int) -> int:
        return len(self.tokens) if generated < self.min_tokens else self.kept


class TokenConstraints:
    """Constraints by request, and by slot once the request has one.

    Slots belong to the thread that runs the steps. Requests are also remembered and forgotten by
    the step loop: one operation on a dictionary each, and a request is forgotten only when nobody
    will read its tokens any more.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._by_request: dict[int, TokenConstraint] = {}
        self._by_slot: dict[int, SlotConstraint] = {}

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
                self._by_slot[slot] = SlotConstraint(constraint, self._device)

    @property
    def nothing_in_slots(self) -> bool:
        return not self._by_slot

    def token_bias(
        self, slots: npt.NDArray[np.int32], generated: npt.NDArray[np.int32]
    ) -> TokenBias | None:
        """What to add to the logits of these rows, or None when nothing.

        `generated` counts the tokens each row has generated so far.
        """
        found = [
            (row, constraint, constraint.size(int(generated[row])))
            for row, slot in enumerate(slots.tolist())
            if (constraint := self._by_slot.get(slot)) is not None
        ]
        rows, constraints, sizes = zip(*found, strict=True) if found else ((), (), ())
        total = sum(sizes)
        if not total:
            return None
        row, size = torch.tensor((rows, sizes)).to(self._device, non_blocking=True)
        of_each = list(zip(constraints, sizes, strict=True))
        return TokenBias(
            row.repeat_interleave(size, output_size=total),
            torch.cat([constraint.tokens[:n] for constraint, n in of_each]),
            torch.cat([constraint.values[:n] for constraint, n in of_each]),
        )
