# SPDX-License-Identifier: MIT
"""A step's slot tables, token by token."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from ts_kernels.step_arena import COUNTS, StepArrays, StepInputs, step_counts


def prepare_step(
    arena: Tensor, tokens: Tensor, pages: Tensor, page_size: int, num_pages: int, inputs: StepInputs
) -> None:
    words = arena.numpy()
    step = step_counts(words)
    begins = [*words[COUNTS : 2 * COUNTS].tolist(), step.words]
    plan = StepArrays(*(words[a:b] for a, b in pairwise(begins)))

    for i, slot in enumerate(plan.admitted_slot):
        begin, end = plan.admitted_offset[i], plan.admitted_offset[i + 1]
        for column, token in enumerate(plan.admitted_tokens[begin:end]):
            tokens[slot, column] = token
    for i in range(step.patches):
        slot, column, page = plan.page_patch[3 * i : 3 * i + 3]
        pages[slot, column] = page

    token = sample = 0
    if step.rows:
        inputs.query_start[0] = 0
    for row, slot in enumerate(plan.row_slot):
        begin, end = plan.row_start[row], plan.row_start[row] + plan.row_tokens[row]
        for position in range(begin, end):
            inputs.token_ids[token] = tokens[slot, position]
            inputs.positions[token] = position
            page = pages[slot, position // page_size]
            inputs.cache_index[token] = page * page_size + position % page_size
            inputs.token_slots[token] = slot
            if row < step.absorbed_rows:
                inputs.absorbed_context[token] = position + 1
            token += 1
        if row >= step.absorbed_rows:
            at = row - step.absorbed_rows
            inputs.expanded_slots[at] = slot
            inputs.query_start[at + 1] = token - step.absorbed_tokens
            inputs.expanded_context[at] = end
        if plan.row_samples[row]:
            inputs.sample_index[sample] = token - 1
            inputs.sample_slots[sample] = slot
            inputs.sample_positions[sample] = end
            sample += 1


def append_tokens(tokens: Tensor, slots: Tensor, positions: Tensor, ids: Tensor) -> None:
    for slot, position, token in zip(slots, positions, ids, strict=True):
        tokens[slot, position] = max(int(token), 0)
