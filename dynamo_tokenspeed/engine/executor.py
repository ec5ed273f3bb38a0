# SPDX-License-Identifier: MIT
"""Runs a plan on the device: patch tables, one forward pass, sample."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
import ts_scheduler

from dynamo_tokenspeed.engine.host_tier import HostTier
from dynamo_tokenspeed.engine.launched_step import LaunchedStep, Readout
from dynamo_tokenspeed.engine.sampler import Sampler
from dynamo_tokenspeed.engine.slot_tables import SlotTables
from dynamo_tokenspeed.engine.token_constraints import TokenConstraints
from dynamo_tokenspeed.model import CausalLM, ForwardBatch, KVPool


class Executor:
    """Owns every tensor of one rank, and runs its steps one after the other.

    On cuda a launch queues the step on the device's stream. The CPU has no such queue: with
    `overlap` a thread takes its place, and the tables belong to that thread.
    """

    def __init__(
        self,
        model: CausalLM,
        pool: KVPool,
        tables: SlotTables,
        sampler: Sampler,
        constraints: TokenConstraints,
        host_tier: HostTier | None,
        overlap: bool,
    ) -> None:
        self.model = model
        self.pool = pool
        self.tables = tables
        self.sampler = sampler
        self.constraints = constraints
        self.host_tier = host_tier
        self._device = tables.tokens.device
        self._thread: ThreadPoolExecutor | None = None
        if overlap and self._device.type == "cpu":
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="steps")

    def launch(self, plan: ts_scheduler.Plan) -> LaunchedStep:
        """Start a step behind those launched before it.

        The plan is read until the step's result is there: it must be valid until then.
        """
        if self._thread is not None:
            return LaunchedStep(plan, self._thread.submit(self._run, plan).result)
        readout = self._run(plan)
        return LaunchedStep(plan, lambda: readout)

    @torch.inference_mode()
    def _run(self, plan: ts_scheduler.Plan) -> Readout:
        """Move pages, patch the tables, compute the rows, append their sampled tokens."""
        if self.host_tier is not None:
            self.host_tier.transfer(plan)
        self.tables.patch(plan)
        if len(plan.admitted_slot):
            self.constraints.take_slots(plan.admitted_request.tolist(), plan.admitted_slot.tolist())
        if not plan.num_rows:  # it only moves pages
            return Readout(None, self._device)
        batch = forward_batch(plan, self.tables, self.pool.page_size)
        logits = self.model.forward(batch, self.pool)

        sampling = plan.row_samples.astype(bool)
        slots = plan.row_slot[sampling]
        context = (plan.row_start + plan.row_tokens)[sampling]
        if not len(slots):
            return Readout(None, self._device)
        sampled = self.sampler.sample(logits, slots, context, self.tables, self.constraints)
        self.tables.append(slots, context, sampled.token_ids)
        return Readout(sampled, self._device)


def forward_batch(plan: ts_scheduler.Plan, tables: SlotTables, page_size: int) -> ForwardBatch:
    """The plan's rows flattened to tokens, read through the slot tables."""
    device = tables.tokens.device
    absorbed, tokens = plan.num_absorbed_rows, plan.row_tokens
    row_end = np.cumsum(tokens, dtype=np.int64)
    num_absorbed_tokens = int(row_end[absorbed - 1]) if absorbed else 0

    token_slots, positions = plan.row_slot, plan.row_start.astype(np.int64)
    if plan.num_tokens > plan.num_rows:
        first = np.repeat(positions - row_end + tokens, tokens)
        token_slots, positions = np.repeat(token_slots, tokens), first + np.arange(plan.num_tokens)
    query_start = np.zeros(plan.num_rows - absorbed + 1, np.int32)
    query_start[1:] = row_end[absorbed:] - num_absorbed_tokens

    def on_device(array: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    slot, position = on_device(token_slots), on_device(positions)
    page = tables.pages[slot, position // page_size].long()
    return ForwardBatch(
        token_ids=tables.tokens[slot, position].long(),
        positions=position,
        cache_index=page * page_size + position % page_size,
        block_table=tables.pages,
        token_slots=slot,
        num_absorbed_tokens=num_absorbed_tokens,
        expanded_slots=on_device(plan.row_slot[absorbed:]),
        query_start=on_device(query_start),
        context_lens=on_device((plan.row_start + tokens)[absorbed:]),
        sample_index=on_device(row_end[plan.row_samples.astype(bool)] - 1),
    )
