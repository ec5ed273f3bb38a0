# SPDX-License-Identifier: MIT
"""Counts that grow with a sequence are those of its whole history, whatever became of it."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ts_kernels import SamplingRows

from dynamo_tokenspeed.engine.penalty_counts import PenaltyCounts
from dynamo_tokenspeed.engine.slot_tables import SlotTables
from dynamo_tokenspeed.protocol import SamplingParams

VOCAB, SLOTS = 9, 3
TOKENS = st.lists(st.integers(0, VOCAB - 1), max_size=12)
PENALISED = SamplingParams(presence_penalty=0.5)


def admit(
    counts: PenaltyCounts, tables: SlotTables, slot: int, history: list[int], prompt: int
) -> None:
    tables.tokens[slot, : len(history)] = torch.tensor(history, dtype=torch.int32)
    plan = SimpleNamespace(
        admitted_slot=np.array([slot], np.int32),
        admitted_request=np.array([0], np.uint64),
        admitted_offset=np.array([0, len(history)], np.int32),
        admitted_prompt_tokens=np.array([prompt], np.int32),
        admitted_params=np.frombuffer(PENALISED.record(), np.uint8)[None],
    )
    tables.admit(plan)
    counts.admit(plan, tables)


def expected(prompt: list[int], generated: list[int]) -> list[int]:
    times = Counter(generated)
    return [2 * times[token] + (token in prompt) for token in range(VOCAB)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lives=st.lists(
        st.tuples(st.integers(0, SLOTS - 1), TOKENS, TOKENS, TOKENS), min_size=1, max_size=5
    )
)
def test_counts_are_those_of_the_history(
    lives: list[tuple[int, list[int], list[int], list[int]]],
) -> None:
    """Of each life of a slot: a prompt, what was generated before a retraction, and since."""
    tables = SlotTables(SLOTS, 64, 4, torch.device("cpu"))
    counts = PenaltyCounts(VOCAB)
    for slot, prompt, before, since in lives:
        admit(counts, tables, slot, prompt + before, len(prompt))
        for token in since:
            rows = SamplingRows.of(
                tables.sampling[[slot]],
                np.array([9]),
                counts=counts.counts,
                slot=np.array([slot]),
            )
            assert rows.penalties is not None
            counts.append(rows.penalties, torch.tensor([token]))
        assert counts.counts is not None
        assert counts.counts[slot].tolist() == expected(prompt, before + since)


def test_nobody_who_asks_for_no_penalty_takes_memory() -> None:
    tables = SlotTables(SLOTS, 64, 4, torch.device("cpu"))
    counts = PenaltyCounts(VOCAB)
    plan = SimpleNamespace(
        admitted_slot=np.array([1], np.int32),
        admitted_request=np.array([0], np.uint64),
        admitted_prompt_tokens=np.array([0], np.int32),
        admitted_params=np.frombuffer(SamplingParams().record(), np.uint8)[None],
    )
    tables.admit(plan)
    counts.admit(plan, tables)
    assert counts.counts is None
