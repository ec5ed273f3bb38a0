# SPDX-License-Identifier: MIT
"""Runs a plan on the device: patch tables, one forward pass, sample."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import torch
import ts_scheduler
from ts_kernels import UNSAMPLEABLE, Ops

from dynamo_tokenspeed.engine.launched_step import LaunchedStep, Readout, RowReadouts
from dynamo_tokenspeed.engine.rows import Rows
from dynamo_tokenspeed.engine.sampler import Sampled, Sampler
from dynamo_tokenspeed.engine.slot_tables import SlotTables
from dynamo_tokenspeed.engine.step_memory import PreparedStep, StepMemory
from dynamo_tokenspeed.engine.token_constraints import TokenConstraints
from dynamo_tokenspeed.engine.transfers import Transfers
from dynamo_tokenspeed.model import CausalLM, KVPool

log = logging.getLogger(__name__)


class Executor:
    """Owns every tensor of one rank, and runs its steps one after the other.

    On cuda a launch queues the step on the device's stream. The CPU has no such queue: with
    `overlap` a thread takes its place, and the tables belong to that thread.
    """

    def __init__(
        self,
        model: CausalLM,
        pool: KVPool,
        ops: Ops,
        tables: SlotTables,
        memory: StepMemory,
        sampler: Sampler,
        constraints: TokenConstraints,
        transfers: Transfers | None,
        overlap: bool,
    ) -> None:
        self.model = model
        self.pool = pool
        self.ops = ops
        self.append = ops.append_tokens
        self.tables = tables
        self.memory = memory
        self.sampler = sampler
        self.constraints = constraints
        self.transfers = transfers
        self._device = tables.tokens.device
        self._thread: ThreadPoolExecutor | None = None
        if overlap and self._device.type == "cpu":
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="steps")

    def launch(self, plan: ts_scheduler.Plan) -> LaunchedStep:
        """Start a step behind those launched before it.

        The plan is read until the step's result is there: it must be valid until then.
        """
        if self.transfers is not None:
            self.transfers.begin(plan)
        if self._thread is not None:
            return LaunchedStep(plan, self._thread.submit(self._run, plan).result)
        readout = self._run(plan)
        return LaunchedStep(plan, lambda: readout)

    def come_to_rest(self) -> None:
        """Wait for every step and transfer that was begun, and forget them."""
        if self._thread is not None:
            self._thread.submit(lambda: None).result()
        if self.transfers is not None:
            self.transfers.forget()

    def close(self) -> None:
        """Nothing is launched any more."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        if self.transfers is not None:
            self.transfers.close()

    @torch.inference_mode()
    def _run(self, plan: ts_scheduler.Plan) -> Readout | RowReadouts:
        """Store what is written over, patch the tables, compute the rows.

        What breaks the computation of a row ends that row's request. Who it is shows when each row
        is computed by itself: rows write the KV of their own tokens only, and read what is before,
        so computing one again gives the same. Nobody is to blame for what happens before.
        """
        if self.transfers is not None:
            self.transfers.store(plan)
        step = self.memory.prepare(plan)
        if len(plan.admitted_slot):
            self.tables.admit(plan)
            self.sampler.admit(plan, self.tables)
            self.constraints.take_slots(plan.admitted_request.tolist(), plan.admitted_slot.tolist())
        if not plan.num_rows:  # it only moves pages
            return Readout(None, self._device)
        try:
            return Readout(self._compute(plan, step), self._device)
        except Exception as error:
            log.exception("step %d failed; computing its rows one by one", plan.step)
            return self._compute_one_by_one(plan, error)

    def _compute(self, rows: ts_scheduler.Plan | Rows, step: PreparedStep) -> Sampled | None:
        """Compute rows, append their sampled tokens; None: they yield none.

        With overlap the next step reads a token before anybody knows that it could not be sampled:
        it finds one, as good as any for a request that has failed.
        """
        logits = self.model.forward(step.batch, self.pool)
        if not step.sample_slots.shape[0]:
            return None
        slots, context = rows.row_slot, rows.row_start + rows.row_tokens
        if step.sample_slots.shape[0] < len(slots):
            sampling = rows.row_samples != 0
            slots, context = slots[sampling], context[sampling]
        sampled = self.sampler.sample(logits, slots, context, self.tables, self.constraints)
        self.append(self.tables.tokens, step.sample_slots, step.sample_positions, sampled.token_ids)
        return sampled

    def _compute_one_by_one(self, plan: ts_scheduler.Plan, error: Exception) -> RowReadouts:
        """Raises `error` when it is nobody's fault: not even a token of nobody can be computed."""
        readouts: list[Readout] = []
        failed: dict[int, str] = {}
        for row in range(plan.num_rows):
            rows = Rows.of(plan, row)
            try:
                sampled = self._compute(rows, self.memory.prepare(rows))
            except Exception as own:
                request = int(self.tables.requests[rows.row_slot[0]])
                log.warning("request %d failed: %r", request, own)
                failed[request] = (
                    f"this request could not be computed ({type(own).__name__}: {own}); what runs "
                    "beside it goes on; a shorter prompt may do, else see the engine's log"
                )
                none = torch.full((int(rows.row_samples[0]),), UNSAMPLEABLE, device=self._device)
                sampled = Sampled(none, None)
            readouts.append(Readout(sampled, self._device))
        if len(failed) == plan.num_rows:
            self._probe(plan, error)
        return RowReadouts(readouts, failed)

    def _probe(self, plan: ts_scheduler.Plan, error: Exception) -> None:
        """Compute one token where the first row's last one would be: that row has failed."""
        page_size = self.pool.page_size
        slot, last = int(plan.row_slot[0]), int(plan.row_start[0] + plan.row_tokens[0]) - 1
        tables = SlotTables(1, 1, page_size, self._device)
        tables.pages[0, 0] = self.tables.pages[slot, last // page_size]
        try:
            memory = StepMemory(self.ops, tables, page_size, self.pool.num_pages, 1, 1, 64)
            self.model.forward(memory.prepare(Rows.one_token()).batch, self.pool)
        except Exception:
            raise error from None
