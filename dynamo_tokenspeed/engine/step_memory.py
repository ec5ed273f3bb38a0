# SPDX-License-Identifier: MIT
"""From a plan to the input of a forward pass, in memory that is allocated once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from ts_kernels import Ops, StepCounts, StepInputs, step_counts

from dynamo_tokenspeed.engine.slot_tables import SlotTables
from dynamo_tokenspeed.model import ForwardBatch


class Packable(Protocol):
    """A plan, or some of its rows."""

    def pack(self, arena: npt.NDArray[np.int32]) -> int: ...


class PreparedStep(NamedTuple):
    """What a step's arena became on the device; valid until the next one is prepared."""

    batch: ForwardBatch
    sample_slots: Tensor  # [S] int64, of the rows that sample
    sample_positions: Tensor  # [S] int64, where in its history the sampled token goes


class StepMemory:
    """Packs a plan into an arena, brings it to the device and makes a batch of it, in one op.

    There are two arenas, taken in turns: while one is still being uploaded, the next step's plan is
    packed into the other. (At most two steps are in flight, and a step has ended when the one after
    the next is launched.)
    """

    def __init__(
        self,
        ops: Ops,
        tables: SlotTables,
        page_size: int,
        num_pages: int,
        max_tokens: int,
        max_rows: int,
        arena_words: int,
    ) -> None:
        device = tables.tokens.device
        self._prepare = ops.prepare_step
        self._tables = tables
        self._page_size = page_size
        self._num_pages = num_pages
        self._inputs = StepInputs.empty(max_tokens, max_rows, device)
        arenas = [
            torch.empty(arena_words, dtype=torch.int32, pin_memory=device.type == "cuda")
            for _ in range(2)
        ]
        self._arenas: Sequence[tuple[Tensor, npt.NDArray[np.int32]]]
        self._arenas = [(arena, arena.numpy()) for arena in arenas]
        self._turn = 0
        self._counts: tuple[int, ...] = ()
        self._prepared: PreparedStep

    def prepare(self, rows: Packable) -> PreparedStep:
        """Patch the slot tables and flatten the rows to tokens."""
        self._turn ^= 1
        arena, words = self._arenas[self._turn]
        rows.pack(words)
        self._prepare(
            arena,
            self._tables.tokens,
            self._tables.pages,
            self._page_size,
            self._num_pages,
            self._inputs,
        )
        counts = step_counts(words)
        # As many rows and tokens as before, as in most steps of decoding: the same views serve.
        if counts[1:6] != self._counts:
            self._counts = counts[1:6]
            self._prepared = self._views(counts)
        return self._prepared

    def _views(self, n: StepCounts) -> PreparedStep:
        inputs = self._inputs
        expanded = n.rows - n.absorbed_rows
        batch = ForwardBatch(
            token_ids=inputs.token_ids[: n.tokens],
            positions=inputs.positions[: n.tokens],
            cache_index=inputs.cache_index[: n.tokens],
            block_table=self._tables.pages,
            token_slots=inputs.token_slots[: n.tokens],
            absorbed_context_lens=inputs.absorbed_context[: n.absorbed_tokens],
            expanded_slots=inputs.expanded_slots[:expanded],
            query_start=inputs.query_start[: expanded + 1],
            context_lens=inputs.expanded_context[:expanded],
            sample_index=inputs.sample_index[: n.sampling_rows],
        )
        sampling = slice(n.sampling_rows)
        return PreparedStep(batch, inputs.sample_slots[sampling], inputs.sample_positions[sampling])
