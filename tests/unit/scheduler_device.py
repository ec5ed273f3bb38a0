# SPDX-License-Identifier: MIT
"""A device for scheduler tests: the tables and the KV pool that a plan patches.

The "KV" of a position is its token and its position, and the "model" samples a
hash of the whole history *read back through the block table*: one wrong page,
one stale entry, one token computed in the wrong place, and the output differs
from `oracle`, which knows nothing of pages.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import ts_scheduler

if TYPE_CHECKING:
    from scheduler_model import SchedulerModel

UNWRITTEN = -1


def next_token(history: np.ndarray, salt: bytes, vocab_size: int) -> int:
    return zlib.crc32(np.asarray(history, np.int32).tobytes(), zlib.crc32(salt)) % vocab_size


@dataclass(frozen=True)
class Ask:
    """One request, as `Scheduler.submit` takes it."""

    request_id: int
    prompt: tuple[int, ...]
    max_tokens: int
    min_tokens: int = 0
    eos_token_ids: tuple[int, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    cache_salt: bytes = b""
    priority: int = 0
    role: str = "aggregated"

    def submit_to(self, scheduler: ts_scheduler.Scheduler | SchedulerModel) -> None:
        scheduler.submit(
            self.request_id,
            np.asarray(self.prompt, np.int32),
            max_tokens=self.max_tokens,
            min_tokens=self.min_tokens,
            eos_token_ids=self.eos_token_ids,
            stop_token_ids=self.stop_token_ids,
            ignore_eos=self.ignore_eos,
            cache_salt=self.cache_salt,
            priority=self.priority,
            params=self.request_id.to_bytes(8, "little"),
            role=self.role,
        )


def oracle(ask: Ask, max_model_len: int, vocab_size: int) -> tuple[list[int], int]:
    """The tokens and the finish reason that the request must end with, alone in the world."""
    history, output = list(ask.prompt), []
    stops = set(ask.stop_token_ids) | (set() if ask.ignore_eos else set(ask.eos_token_ids))
    while True:
        token = next_token(np.asarray(history, np.int32), ask.cache_salt, vocab_size)
        history.append(token)
        output.append(token)
        if token in stops and len(output) >= ask.min_tokens:
            return output, ts_scheduler.Finish.STOP
        if len(output) >= ask.max_tokens or len(history) >= max_model_len:
            return output, ts_scheduler.Finish.LENGTH


@dataclass
class Device:
    """Executes plans: patches its tables, writes KV, samples."""

    config: ts_scheduler.SchedulerConfig
    salts: dict[int, bytes] = field(default_factory=dict)  # request -> salt, part of its "model"

    def __post_init__(self) -> None:
        c = self.config
        self.tokens = np.full((c.max_num_seqs, c.max_model_len), UNWRITTEN, np.int32)
        self.block_table = np.full((c.max_num_seqs, c.pages_per_sequence), UNWRITTEN, np.int32)
        self.kv = np.full((c.num_pages, c.page_size, 2), UNWRITTEN, np.int32)  # (token, position)
        self.request = np.zeros(c.max_num_seqs, np.uint64)
        self.prompt_tokens = np.zeros(c.max_num_seqs, np.int32)

    def execute(self, plan: ts_scheduler.Plan) -> np.ndarray:
        c = self.config
        self.prompt_tokens[plan.admitted_slot] = plan.admitted_prompt_tokens
        self._check_shape(plan)
        for i, slot in enumerate(plan.admitted_slot):
            begin, end = plan.admitted_offset[i : i + 2]
            self.tokens[slot] = UNWRITTEN
            self.block_table[slot] = UNWRITTEN
            self.tokens[slot, : end - begin] = plan.admitted_tokens[begin:end]
            self.request[slot] = plan.admitted_request[i]
            if c.params_size == 8:
                assert plan.admitted_params[i].tobytes() == self.request[slot].tobytes()
        slots, columns, pages = plan.page_patch.T
        assert len({(s, c) for s, c in zip(slots, columns, strict=True)}) == len(slots)
        self.block_table[slots, columns] = pages

        sampled = []
        for row in range(plan.num_rows):
            slot, start = int(plan.row_slot[row]), int(plan.row_start[row])
            end = start + int(plan.row_tokens[row])
            positions = np.arange(start, end)
            assert (self.tokens[slot, positions] != UNWRITTEN).all()
            page = self.block_table[slot, positions // c.page_size]
            assert (page != UNWRITTEN).all()
            self.kv[page, positions % c.page_size, 0] = self.tokens[slot, positions]
            self.kv[page, positions % c.page_size, 1] = positions
            if plan.row_samples[row]:
                token = self._sample(slot, end)
                if end < c.max_model_len:
                    self.tokens[slot, end] = token
                sampled.append(token)
        return np.asarray(sampled, np.int32)

    def _sample(self, slot: int, length: int) -> int:
        positions = np.arange(length)
        pages = self.block_table[slot, positions // self.config.page_size]
        history = self.kv[pages, positions % self.config.page_size]
        assert (history[:, 1] == positions).all(), "a page of another position was read"
        salt = self.salts.get(int(self.request[slot]), b"")
        return next_token(history[:, 0], salt, self.config.vocab_size)

    def _check_shape(self, plan: ts_scheduler.Plan) -> None:
        c = self.config
        assert plan.num_rows > 0
        assert plan.row_tokens.sum() == plan.num_tokens <= c.max_num_batched_tokens
        assert (plan.row_tokens >= 1).all() and (plan.row_tokens <= c.chunked_prefill_size).all()
        expands = np.arange(plan.num_rows) >= plan.num_absorbed_rows
        expanded_length = np.minimum(self.prompt_tokens[plan.row_slot], c.absorb_from)
        assert (expands == (plan.row_start < expanded_length)).all()
        assert (plan.row_start + plan.row_tokens <= expanded_length)[expands].all()
        assert len(set(plan.row_slot.tolist())) == plan.num_rows
