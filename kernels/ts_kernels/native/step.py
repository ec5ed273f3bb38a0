# SPDX-License-Identifier: MIT
"""A step's slot tables, in one pass over its rows."""

from __future__ import annotations

from torch import Tensor

from ts_kernels import _native
from ts_kernels.step_arena import StepInputs


def prepare_step(
    arena: Tensor, tokens: Tensor, pages: Tensor, page_size: int, num_pages: int, inputs: StepInputs
) -> None:
    slots, max_tokens = tokens.shape
    _native.prepare_step(
        arena.data_ptr(),
        tokens.data_ptr(),
        pages.data_ptr(),
        slots,
        max_tokens,
        pages.shape[1],
        page_size,
        num_pages,
        inputs.token_ids.data_ptr(),
        inputs.positions.data_ptr(),
        inputs.cache_index.data_ptr(),
        inputs.token_slots.data_ptr(),
        inputs.absorbed_context.data_ptr(),
        inputs.expanded_slots.data_ptr(),
        inputs.query_start.data_ptr(),
        inputs.expanded_context.data_ptr(),
        inputs.sample_index.data_ptr(),
        inputs.sample_slots.data_ptr(),
        inputs.sample_positions.data_ptr(),
    )


def append_tokens(tokens: Tensor, slots: Tensor, positions: Tensor, ids: Tensor) -> None:
    table_slots, max_tokens = tokens.shape
    # A copy must outlive the call: what is passed is its address.
    slots, positions, ids = slots.contiguous(), positions.contiguous(), ids.contiguous()
    _native.append_tokens(
        tokens.data_ptr(),
        slots.data_ptr(),
        positions.data_ptr(),
        ids.data_ptr(),
        ids.shape[0],
        table_slots,
        max_tokens,
    )
