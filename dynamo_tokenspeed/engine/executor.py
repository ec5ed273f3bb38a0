# SPDX-License-Identifier: MIT
"""Runs a plan on the device: patch tables, one forward pass, sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import ts_scheduler

from dynamo_tokenspeed.engine.sampler import Sampler
from dynamo_tokenspeed.engine.slot_tables import SlotTables
from dynamo_tokenspeed.engine.token_constraints import TokenConstraints
from dynamo_tokenspeed.model import CausalLM, ForwardBatch, KVPool
from dynamo_tokenspeed.protocol import TokenLogprobs


class StepResult:
    """What one step sampled, one entry per sampling row in row order."""

    def __init__(
        self, token_ids: npt.NDArray[np.int32], logprobs: dict[int, TokenLogprobs]
    ) -> None:
        self.token_ids = token_ids
        self._logprobs = logprobs

    def logprobs(self, rows: npt.NDArray[np.int32]) -> list[TokenLogprobs]:
        """Log-probabilities of the tokens that were kept, re-indexed to entries of `rows`."""
        if not self._logprobs:
            return []
        return [
            TokenLogprobs(index, kept.logprob, kept.top_ids, kept.top_logprobs)
            for index, row in enumerate(rows.tolist())
            if (kept := self._logprobs.get(row)) is not None
        ]


class Executor:
    """Owns every tensor of one rank."""

    def __init__(
        self,
        model: CausalLM,
        pool: KVPool,
        tables: SlotTables,
        sampler: Sampler,
        constraints: TokenConstraints,
    ) -> None:
        self.model = model
        self.pool = pool
        self.tables = tables
        self.sampler = sampler
        self.constraints = constraints

    @torch.inference_mode()
    def launch(self, plan: ts_scheduler.Plan) -> StepResult:
        """Execute one step and write its sampled tokens to the token table."""
        self.tables.patch(plan)
        if len(plan.admitted_slot):
            self.constraints.take_slots(plan.admitted_request.tolist(), plan.admitted_slot.tolist())
        batch = forward_batch(plan, self.tables, self.pool.page_size)
        logits = self.model.forward(batch, self.pool)

        sampling = plan.row_samples.astype(bool)
        slots = plan.row_slot[sampling]
        context = (plan.row_start + plan.row_tokens)[sampling]
        if not len(slots):
            return StepResult(np.empty(0, np.int32), {})
        sampled = self.sampler.sample(logits, slots, context, self.tables, self.constraints)
        self.tables.append(slots, context, sampled.token_ids)
        return StepResult(sampled.token_ids.to(torch.int32).cpu().numpy(), sampled.logprobs)


def forward_batch(plan: ts_scheduler.Plan, tables: SlotTables, page_size: int) -> ForwardBatch:
    """The plan's rows flattened to tokens, read through the slot tables."""
    device = tables.tokens.device
    slots, start = plan.row_slot.astype(np.int64), plan.row_start.astype(np.int64)
    query_start = np.zeros(plan.num_rows + 1, np.int32)
    np.cumsum(plan.row_tokens, out=query_start[1:])
    context_lens = plan.row_start + plan.row_tokens

    if plan.num_tokens == plan.num_rows:  # every row has one token
        token_slots, positions = slots, start
    else:
        row = np.repeat(np.arange(plan.num_rows), plan.row_tokens)
        token_slots = slots[row]
        positions = np.arange(plan.num_tokens) - query_start[row] + start[row]

    def on_device(array: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    slot, position = on_device(token_slots), on_device(positions)
    page = tables.pages[slot, position // page_size].long()
    columns = -(-int(context_lens.max()) // page_size)
    return ForwardBatch(
        token_ids=tables.tokens[slot, position].long(),
        positions=position,
        cache_index=page * page_size + position % page_size,
        num_decode_rows=plan.num_decode_rows,
        block_table=tables.pages[on_device(slots), :columns],
        query_start=on_device(query_start),
        context_lens=on_device(context_lens),
        sample_index=on_device(
            (query_start[1:] - 1)[plan.row_samples.astype(bool)].astype(np.int64)
        ),
    )
