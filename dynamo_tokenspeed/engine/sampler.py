# SPDX-License-Identifier: MIT
"""Sampling of a step's rows, with their slots' parameters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import ts_scheduler
from ts_kernels import Ops, SamplingRows

from dynamo_tokenspeed.engine.penalty_counts import PenaltyCounts
from dynamo_tokenspeed.engine.slot_tables import SlotTables
from dynamo_tokenspeed.engine.token_constraints import TokenConstraints
from dynamo_tokenspeed.protocol import TokenLogprobs


class Sampled(NamedTuple):
    """What the rows of a step got; where the tensors are on a device, they may be on their way."""

    token_ids: torch.Tensor  # [rows] int64; UNSAMPLEABLE for a row that has none
    logprobs: SampledLogprobs | None  # None: no row asked

    def to_host(self) -> Sampled:
        """Start the copies to the host; on cuda they are there when the stream has come so far."""
        if self.token_ids.is_cpu:
            return self
        logprobs = self.logprobs.to_host() if self.logprobs is not None else None
        return Sampled(self.token_ids.to("cpu", non_blocking=True), logprobs)


class SampledLogprobs(NamedTuple):
    """Log-probabilities of the n rows that asked, with as many alternatives as the most curious."""

    row: npt.NDArray[np.int64]  # [n]
    wanted: npt.NDArray[np.int32]  # [n], alternatives that each row asked for
    chosen: torch.Tensor  # [n]
    top_ids: torch.Tensor  # [n, k]
    top: torch.Tensor  # [n, k]

    def to_host(self) -> SampledLogprobs:
        tensors = (self.chosen, self.top_ids, self.top)
        on_host = (tensor.to("cpu", non_blocking=True) for tensor in tensors)
        return SampledLogprobs(self.row, self.wanted, *on_host)

    def by_row(self) -> dict[int, TokenLogprobs]:
        columns = (self.row, self.wanted, self.chosen, self.top_ids, self.top)
        return {
            row: TokenLogprobs(row, logprob, ids[:wanted], values[:wanted])
            for row, wanted, logprob, ids, values in zip(
                *(column.tolist() for column in columns), strict=True
            )
        }


_GREEDY = SamplingRows()


class Sampler:
    """`unknown`: int64 ids that no tokenizer has a text for, which nobody ever gets."""

    def __init__(self, ops: Ops, vocab_size: int, unknown: torch.Tensor | None = None) -> None:
        """vocab_size: columns of the logits."""
        self._sample = ops.sample
        self._token_logprobs = ops.token_logprobs
        self._unknown = unknown
        self._penalties = PenaltyCounts(vocab_size)

    def admit(self, plan: ts_scheduler.Plan, tables: SlotTables) -> None:
        """The plan has filled slots: `tables` has their histories."""
        self._penalties.admit(plan, tables)

    def sample(
        self,
        logits: torch.Tensor,
        slots: npt.NDArray[np.int32],
        context: npt.NDArray[np.int32],
        tables: SlotTables,
        constraints: TokenConstraints,
    ) -> Sampled:
        """The next token of every row.

        logits: [rows, vocab] fp32, written to. slots, context: [rows]; context counts the tokens
        before the one to be sampled.
        """
        if self._unknown is not None:
            logits.index_fill_(1, self._unknown, -torch.inf)
        if constraints.nothing_in_slots and tables.greedy[slots].all():
            return Sampled(self._sample(logits, _GREEDY), None)
        records = tables.sampling[slots]
        rows = SamplingRows.of(
            records,
            context,
            device=logits.device,
            bias=constraints.token_bias(slots, context - tables.prompt_tokens[slots]),
            counts=self._penalties.counts,
            slot=slots,
        )
        token_ids = self._sample(logits, rows)
        if rows.penalties is not None:
            self._penalties.append(rows.penalties, token_ids)
        return Sampled(token_ids, self._logprobs(logits, token_ids, records["logprobs"]))

    def _logprobs(
        self, logits: torch.Tensor, token_ids: torch.Tensor, wanted: npt.NDArray[np.int32]
    ) -> SampledLogprobs | None:
        asking = (wanted >= 0).nonzero()[0]
        if not len(asking):
            return None
        row = torch.from_numpy(asking).to(logits.device, non_blocking=True)
        k = int(wanted[asking].max())
        chosen_ids = token_ids[row].clamp_(min=0)  # what an unsampleable row gets nobody will see
        chosen, top_ids, top = self._token_logprobs(logits[row], chosen_ids, k)
        return SampledLogprobs(asking, wanted[asking], chosen, top_ids, top)
