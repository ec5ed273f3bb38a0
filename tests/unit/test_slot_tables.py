# SPDX-License-Identifier: MIT
"""Plans patch the slot tables; the executor reads its batch through them."""

from types import SimpleNamespace

import numpy as np
import torch

from dynamo_tokenspeed.engine.executor import forward_batch
from dynamo_tokenspeed.engine.slot_tables import SlotTables
from dynamo_tokenspeed.protocol import SAMPLING_DTYPE, SamplingParams

PAGE_SIZE = 4


def i32(*values):
    return np.array(values, np.int32)


def admission(slot: int, tokens: list[int], pages: list[int], prompt: int | None = None, **params):
    """A plan that gives `slot` a history and its first pages."""
    return SimpleNamespace(
        admitted_slot=i32(slot),
        admitted_request=np.array([slot + 100], np.uint64),
        admitted_offset=i32(0, len(tokens)),
        admitted_prompt_tokens=i32(len(tokens) if prompt is None else prompt),
        admitted_tokens=i32(*tokens),
        admitted_params=np.frombuffer(SamplingParams(**params).record(), np.uint8)[None],
        page_patch=np.array([(slot, i, p) for i, p in enumerate(pages)], np.int32),
    )


def rows(*rows, absorbed=0):
    """A plan of (slot, start, tokens, samples) rows that changes no table; so many, the first, are
    absorbed."""
    slot, start, tokens, samples = (list(column) for column in zip(*rows, strict=True))
    return SimpleNamespace(
        num_rows=len(rows),
        num_absorbed_rows=absorbed,
        num_tokens=sum(tokens),
        row_slot=i32(*slot),
        row_start=i32(*start),
        row_tokens=i32(*tokens),
        row_samples=np.array(samples, np.uint8),
    )


def tables() -> SlotTables:
    return SlotTables(
        max_num_seqs=4, max_model_len=16, page_size=PAGE_SIZE, device=torch.device("cpu")
    )


def test_an_admission_writes_history_pages_and_parameters():
    t = tables()
    t.patch(admission(2, [11, 12, 13, 14, 15], [7, 9], prompt=3, temperature=0.5, seed=42))
    assert t.tokens[2, :5].tolist() == [11, 12, 13, 14, 15]
    assert t.pages[2, :2].tolist() == [7, 9]
    assert t.prompt_tokens[2] == 3
    assert t.sampling[2]["temperature"] == 0.5
    assert t.sampling[2]["seed"] == 42


def test_the_sampling_record_is_one_row_of_the_table():
    assert len(SamplingParams().record()) == SAMPLING_DTYPE.itemsize


def test_a_sampled_token_is_the_next_steps_input():
    t = tables()
    t.patch(admission(1, [5, 6], [3]))
    t.append(i32(1), i32(2), torch.tensor([99]))
    batch = forward_batch(rows((1, 2, 1, 1), absorbed=1), t, PAGE_SIZE)
    assert batch.token_ids.tolist() == [99]
    assert batch.positions.tolist() == [2]


def test_a_mixed_batch_is_flattened_token_by_token():
    t = tables()
    t.patch(admission(0, [1, 2, 3, 4, 5], [6, 2]))
    t.patch(admission(3, [21, 22, 23, 24, 25, 26], [8, 5]))
    t.patch(admission(1, [31, 32], [7]))
    batch = forward_batch(rows((0, 3, 2, 1), (3, 2, 3, 0), (1, 0, 2, 1), absorbed=1), t, PAGE_SIZE)
    assert batch.token_ids.tolist() == [4, 5, 23, 24, 25, 31, 32]
    assert batch.positions.tolist() == [3, 4, 2, 3, 4, 0, 1]
    assert batch.cache_index.tolist() == [27, 8, 34, 35, 20, 28, 29]
    assert batch.token_slots.tolist() == [0, 0, 3, 3, 3, 1, 1]
    assert batch.num_absorbed_tokens == 2
    assert batch.expanded_slots.tolist() == [3, 1]
    assert batch.query_start.tolist() == [0, 3, 5]
    assert batch.context_lens.tolist() == [5, 2]
    assert batch.sample_index.tolist() == [1, 6]


def test_a_step_reads_the_slot_tables_where_they_are():
    t = tables()
    t.patch(admission(0, list(range(12)), [1, 2, 3]))
    batch = forward_batch(rows((0, 0, 5, 0)), t, PAGE_SIZE)
    assert batch.block_table.data_ptr() == t.pages.data_ptr()
