# SPDX-License-Identifier: MIT
"""A plan patches the slot tables, and becomes the input of a forward pass."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import ts_kernels
from ts_kernels import StepArrays, pack_step

from dynamo_tokenspeed.engine.slot_tables import SlotTables
from dynamo_tokenspeed.engine.step_memory import StepMemory
from dynamo_tokenspeed.protocol import SAMPLING_DTYPE, SamplingParams

PAGE_SIZE = 4
BACKENDS = ["native", "torch", "reference"]


def i32(*values):
    return np.array(values, np.int32)


class Step:
    """What a plan packs: (slot, history, pages) admitted, then (slot, start, tokens, samples) rows,
    of which so many, the first, are absorbed."""

    def __init__(self, admitted=(), rows=(), absorbed=0):
        slot, start, tokens, samples = (
            (i32(*c) for c in zip(*rows, strict=True)) if rows else ([i32()] * 4)
        )
        histories = [history for _, history, _ in admitted]
        patch = [(s, c, page) for s, _, pages in admitted for c, page in enumerate(pages)]
        self.absorbed = absorbed
        self.arrays = StepArrays(
            *(slot, start, tokens, samples),
            admitted_slot=i32(*(slot for slot, _, _ in admitted)),
            admitted_offset=i32(*np.cumsum([0, *map(len, histories)])),
            admitted_tokens=i32(*(token for history in histories for token in history)),
            page_patch=np.array(patch, np.int32).reshape(-1, 3),
        )

    def pack(self, arena):
        return pack_step(arena, self.arrays, self.absorbed)


def tables() -> SlotTables:
    return SlotTables(
        max_num_seqs=4, max_model_len=16, page_size=PAGE_SIZE, device=torch.device("cpu")
    )


def memory(t: SlotTables, backend: str) -> StepMemory:
    try:
        ops = ts_kernels.bind("cpu", torch.float32, {"prepare_step": backend})
    except ts_kernels.NoImplementation as missing:
        pytest.skip(str(missing))
    return StepMemory(ops, t, PAGE_SIZE, num_pages=10, max_tokens=16, max_rows=4, arena_words=256)


def test_an_admission_changes_its_slot_on_the_host():
    t = tables()
    record = SamplingParams(temperature=0.5, seed=42).record()
    t.admit(
        SimpleNamespace(
            admitted_slot=i32(2),
            admitted_request=np.array([102], np.uint64),
            admitted_prompt_tokens=i32(3),
            admitted_params=np.frombuffer(record, np.uint8)[None],
        )
    )
    assert t.prompt_tokens[2] == 3
    assert t.requests[2] == 102
    assert t.sampling[2]["temperature"] == 0.5
    assert t.sampling[2]["seed"] == 42
    assert not t.greedy[2]


def test_the_sampling_record_is_one_row_of_the_table():
    assert len(SamplingParams().record()) == SAMPLING_DTYPE.itemsize


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_admission_writes_history_and_pages(backend):
    t = tables()
    memory(t, backend).prepare(Step([(2, [11, 12, 13, 14, 15], [7, 9])]))
    assert t.tokens[2, :5].tolist() == [11, 12, 13, 14, 15]
    assert t.pages[2, :2].tolist() == [7, 9]
    assert t.tokens.count_nonzero() == 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sampled_token_is_the_next_steps_input(backend):
    t = tables()
    steps = memory(t, backend)
    step = steps.prepare(Step([(1, [5, 6], [3])], [(1, 0, 2, 1)]))
    ts_kernels.append_tokens(t.tokens, step.sample_slots, step.sample_positions, torch.tensor([99]))
    batch = steps.prepare(Step(rows=[(1, 2, 1, 1)], absorbed=1)).batch
    assert batch.token_ids.tolist() == [99]
    assert batch.positions.tolist() == [2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mixed_batch_is_flattened_token_by_token(backend):
    t = tables()
    admitted = [(0, [1, 2, 3, 4, 5], [6, 2]), (3, list(range(21, 27)), [8, 5]), (1, [31, 32], [7])]
    rows = [(0, 3, 2, 1), (3, 2, 3, 0), (1, 0, 2, 1)]
    step = memory(t, backend).prepare(Step(admitted, rows, absorbed=1))
    batch = step.batch
    assert batch.token_ids.tolist() == [4, 5, 23, 24, 25, 31, 32]
    assert batch.positions.tolist() == [3, 4, 2, 3, 4, 0, 1]
    assert batch.cache_index.tolist() == [27, 8, 34, 35, 20, 28, 29]
    assert batch.token_slots.tolist() == [0, 0, 3, 3, 3, 1, 1]
    assert batch.absorbed_context_lens.tolist() == [4, 5]
    assert batch.expanded_slots.tolist() == [3, 1]
    assert batch.query_start.tolist() == [0, 3, 5]
    assert batch.context_lens.tolist() == [5, 2]
    assert batch.sample_index.tolist() == [1, 6]
    assert step.sample_slots.tolist() == [0, 1]
    assert step.sample_positions.tolist() == [5, 2]


def test_a_step_reads_the_slot_tables_where_they_are():
    t = tables()
    step = memory(t, "torch").prepare(Step([(0, list(range(12)), [1, 2, 3])], [(0, 0, 5, 0)]))
    assert step.batch.block_table.data_ptr() == t.pages.data_ptr()


def test_steps_of_one_shape_share_their_views():
    steps = memory(tables(), "torch")
    first = steps.prepare(Step([(0, [1, 2, 3], [4])], [(0, 2, 1, 1)], absorbed=1))
    second = steps.prepare(Step(rows=[(0, 1, 1, 1)], absorbed=1))
    assert second is first
    assert second.batch.positions.tolist() == [1]
    assert steps.prepare(Step(rows=[(0, 1, 1, 1)])) is not first
