# SPDX-License-Identifier: MIT
"""The scheduler packs its plans as `ts_kernels.step_arena` lays them out; a native step trusts
nothing in an arena that it would use as an index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import ts_kernels
import ts_scheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from ts_kernels import StepArrays, StepInputs, pack_step, step_counts

pytest.importorskip("ts_kernels._native", reason="the extension module is not built")

from ts_kernels.native import step as native


def scheduler() -> ts_scheduler.Scheduler:
    return ts_scheduler.Scheduler(
        ts_scheduler.SchedulerConfig(
            page_size=4,
            num_pages=24,
            max_num_seqs=4,
            max_model_len=40,
            max_num_batched_tokens=16,
            chunked_prefill_size=8,
            vocab_size=100,
            absorb_from=10,
        )
    )


def by_hand(plan: ts_scheduler.Plan) -> np.ndarray:
    arena = np.zeros(1 << 14, np.int32)
    arrays = StepArrays(
        plan.row_slot,
        plan.row_start,
        plan.row_tokens,
        plan.row_samples.astype(np.int32),
        plan.admitted_slot,
        plan.admitted_offset,
        plan.admitted_tokens[: plan.admitted_offset[-1]],
        plan.page_patch,
    )
    return arena[: pack_step(arena, arrays, plan.num_absorbed_rows)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_plan_packs_itself_as_its_columns_say(lengths: list[int], seed: int) -> None:
    s = scheduler()
    rng = np.random.default_rng(seed)
    for request, length in enumerate(lengths):
        prompt = rng.integers(0, 100, length, dtype=np.int32)
        s.submit(request, prompt, max_tokens=9)
    arena = np.zeros(s.arena_words, np.int32)
    while (plan := s.plan()) is not None:
        words = plan.pack(arena)
        assert arena[:words].tolist() == by_hand(plan).tolist()
        counts = step_counts(arena)
        assert counts.words == words
        assert (counts.rows, counts.tokens) == (plan.num_rows, plan.num_tokens)
        s.commit(plan.step, np.full(counts.sampling_rows, 7, np.int32))


def test_memory_that_is_too_small_for_a_plan_is_refused() -> None:
    s = scheduler()
    s.submit(1, np.zeros(3, np.int32), max_tokens=1)
    plan = s.plan()
    assert plan is not None
    with pytest.raises(ValueError, match=r"arena has 16 words, but a plan may need \d+"):
        plan.pack(np.zeros(16, np.int32))


def arena(**changed: list[int]) -> torch.Tensor:
    arrays = {
        "row_slot": [1],
        "row_start": [2],
        "row_tokens": [1],
        "row_samples": [1],
        "admitted_slot": [1],
        "admitted_offset": [0, 3],
        "admitted_tokens": [5, 6, 7],
        "page_patch": [[1, 0, 3]],
    } | changed
    words = np.zeros(256, np.int32)
    columns = {name: np.array(values, np.int32) for name, values in arrays.items()}
    pack_step(words, StepArrays(**columns), absorbed_rows=1)
    return torch.from_numpy(words)


def prepare(words: torch.Tensor, op: Callable[..., None] = native.prepare_step) -> list[int]:
    tokens = torch.zeros((2, 8), dtype=torch.int32)
    pages = torch.zeros((2, 4), dtype=torch.int32)
    inputs = StepInputs.empty(16, 4, "cpu")
    try:
        op(words, tokens, pages, 2, 4, inputs)
    except IndexError:
        assert not tokens.any()
        assert not pages.any()
        raise
    return inputs.token_ids[:1].tolist()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"row_slot": [2]}, "a row's slot is 2, but must be in [0, 2)"),
        ({"row_slot": [-1]}, "a row's slot is -1, but must be in [0, 2)"),
        ({"row_start": [-1]}, "a row's start is -1, but must be in [0, 8)"),
        ({"row_tokens": [7]}, "a row's end is 9, but must be in [0, 9)"),
        ({"admitted_slot": [2]}, "an admission's slot is 2, but must be in [0, 2)"),
        ({"admitted_offset": [0, 9]}, "an admission's history is 9, but must be in [0, 9)"),
        ({"page_patch": [[1, 0, 4]]}, "a patch's page is 4, but must be in [0, 4)"),
        ({"page_patch": [[1, 4, 0]]}, "a patch's column is 4, but must be in [0, 4)"),
        ({"page_patch": [[-1, 0, 0]]}, "a patch's slot is -1, but must be in [0, 2)"),
    ],
)
def test_an_index_outside_of_the_tables_is_refused(
    changed: dict[str, list[int]], sentence: str
) -> None:
    assert prepare(arena()) == [7]
    with pytest.raises(IndexError) as caught:
        prepare(arena(**changed))
    assert str(caught.value) == sentence


def test_inputs_that_are_too_small_are_refused_before_anything_is_written() -> None:
    tokens = torch.zeros((2, 32), dtype=torch.int32)
    inputs = StepInputs.empty(4, 4, "cpu")
    words = arena(row_start=[0], row_tokens=[5])
    with pytest.raises(ValueError, match="inputs have room for 4 tokens in 4 rows, but the step"):
        ts_kernels.prepare_step(words, tokens, tokens, 2, 4, inputs)
    assert not tokens.any()


@pytest.mark.parametrize(("slot", "position"), [(2, 0), (-1, 0), (0, 8), (0, -1)])
def test_a_token_is_appended_inside_of_the_table_only(slot: int, position: int) -> None:
    tokens = torch.zeros((2, 8), dtype=torch.int32)
    one = torch.tensor([1])
    with pytest.raises(IndexError):
        native.append_tokens(tokens, one * slot, one * position, one)
    assert not tokens.any()
