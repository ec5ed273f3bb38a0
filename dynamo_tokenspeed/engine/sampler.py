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
    token_ids: torch.Tensor  # [rows] int64, on the device
    logprobs: dict[int, TokenLogprobs]  # by row, only those that asked


class Sampler:
    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def sample(
        self,
        logits: torch.Tensor,
        slots: npt.NDArray[np.int32],
        context: npt.NDArray[np.int32],
        tables: SlotTables,
        constraints: TokenConstraints,
    ) -> Sampled:
        """The next token of every row.

        logits: [rows, vocab] fp32. slots, context: [rows]; context counts the tokens before the
        one to be sampled.
        """
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
    ) -> dict[int, TokenLogprobs]:
        asking = (wanted >= 0).nonzero()[0]
        if not len(asking):
            return {}
        row = torch.from_numpy(asking).to(logits.device)
        k = int(wanted[asking].max())
        chosen, top_ids, top = self._ops.token_logprobs(logits[row], token_ids[row], k)
        return {
            index: TokenLogprobs(index, logprob, ids[: wanted[index]], values[: wanted[index]])
            for index, logprob, ids, values in zip(
                asking.tolist(), chosen.tolist(), top_ids.tolist(), top.tolist(), strict=True
            )
        }
