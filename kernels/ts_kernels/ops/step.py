# SPDX-License-Identifier: MIT
"""What a step does to the slot tables before its forward pass and after it."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels.ops import checks
from ts_kernels.ops.dispatch import ops_beside
from ts_kernels.step_arena import HEADER, StepInputs, step_counts


def prepare_step(
    arena: Tensor, tokens: Tensor, pages: Tensor, page_size: int, num_pages: int, inputs: StepInputs
) -> None:
    """Patches the slot tables, then flattens a step's rows to tokens, all from one arena.

    arena: [words] int32 on the host, laid out as `ts_kernels.step_arena` says; pinned, it is not
    waited for. tokens: [slots, max_model_len] int32, each slot's history, and pages: [slots,
    columns] int32, both contiguous, both patched. num_pages: of the pool. inputs: on the tables'
    device, large enough.

    IndexError, and nothing is written, where a page, slot, column or token would be outside of
    what there is; a backend on a device may leave that unchecked. ValueError: a size or a dtype
    differs.
    """
    checks.dtype("arena", arena, torch.int32)
    checks.shape("arena", arena, None)
    for name, table in (("tokens", tokens), ("pages", pages)):
        checks.dtype(name, table, torch.int32)
        checks.shape(name, table, tokens.shape[0], None)
    if len(arena) < HEADER or len(arena) < (step := step_counts(arena.numpy())).words:
        raise ValueError(f"arena has {len(arena)} words, less than its step")
    if step.tokens > len(inputs.token_ids) or step.rows > len(inputs.expanded_slots):
        raise ValueError(
            f"inputs have room for {len(inputs.token_ids)} tokens in {len(inputs.expanded_slots)} "
            f"rows, but the step has {step.tokens} in {step.rows}"
        )
    ops_beside(tokens).prepare_step(arena, tokens, pages, page_size, num_pages, inputs)


def append_tokens(tokens: Tensor, slots: Tensor, positions: Tensor, ids: Tensor) -> None:
    """tokens[slots[r], positions[r]] = ids[r], in place; 0 for one that is negative.

    tokens: [S, max_model_len] int32, contiguous. slots, positions, ids: [R] int64. IndexError, and
    nothing is written, for a place that there is not.
    """
    checks.dtype("tokens", tokens, torch.int32)
    checks.shape("tokens", tokens, None, None)
    for name, column in (("slots", slots), ("positions", positions), ("ids", ids)):
        checks.dtype(name, column, torch.int64)
        checks.shape(name, column, len(ids))
    ops_beside(tokens).append_tokens(tokens, slots, positions, ids)
