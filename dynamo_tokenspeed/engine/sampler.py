# SPDX-License-Identifier: MIT
"""Sampling of a step's rows, with their slots' parameters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from ts_kernels import Ops, SamplingRows

from dynamo_tokenspeed.engine.slot_tables import SlotTables
from dynamo_tokenspeed.engine.token_constraints import TokenConstraints
from dynamo_tokenspeed.protocol import TokenLogprobs


class Sampled(NamedTuple):
    """What the rows of a step got; where the tensors are on a device, they may be on their way."""

    token_ids: torch.Tensor  # [rows] int64; UNSAMPLEABLE for a row that has none
    logprobs: SampledLogprobs | None  # None: no row asked

    def to_host(self) -> Sampled:
        """Start the copies to the host; on cuda they are there when the stream has come so far."""
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


class Sampler:
    """`unknown`: int64 ids that no tokenizer has a text for, which nobody ever gets."""

    def __init__(self, ops: Ops, unknown: torch.Tensor | None = None) -> None:
        self._ops = ops
        self._unknown = unknown

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
        records = tables.sampling[slots]
        prompt_tokens = tables.prompt_tokens[slots]
        rows = SamplingRows.of(
            records,
            context,
            device=logits.device,
            bias=constraints.sparse_logits(slots, context - prompt_tokens),
            token_table=tables.tokens,
            slot=slots,
            prompt_len=prompt_tokens,
        )
        token_ids = self._ops.sample(logits, rows)
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
        chosen, top_ids, top = self._ops.token_logprobs(logits[row], chosen_ids, k)
        return SampledLogprobs(asking, wanted[asking], chosen, top_ids, top)
