# SPDX-License-Identifier: MIT
"""A step's slot tables, in tensor operations: one upload, then a handful of kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels.step_arena import COUNTS, StepArrays, StepInputs, step_counts


def prepare_step(
    arena: Tensor, tokens: Tensor, pages: Tensor, page_size: int, num_pages: int, inputs: StepInputs
) -> None:
    step = step_counts(arena.numpy())
    places = dict(zip(StepArrays._fields, arena[COUNTS : 2 * COUNTS].tolist(), strict=True))
    on_device = arena[: step.words].to(tokens.device, non_blocking=True)

    def array(name: str, size: int) -> Tensor:
        return on_device[places[name] : places[name] + size]

    if step.admissions:
        offset = array("admitted_offset", step.admissions + 1).long()
        size = places["page_patch"] - places["admitted_tokens"]
        of = _owners(offset.diff(), size)
        column = torch.arange(size, device=tokens.device) - offset[of]
        slot = array("admitted_slot", step.admissions).long()[of]
        tokens[slot, column] = array("admitted_tokens", size)
    if step.patches:
        slot, column, page = array("page_patch", 3 * step.patches).view(-1, 3).unbind(1)
        pages[slot.long(), column.long()] = page
    if not step.rows:
        return

    row_slot, row_start = array("row_slot", step.rows), array("row_start", step.rows).long()
    row_tokens = array("row_tokens", step.rows).long()
    row_end = row_tokens.cumsum(0)
    row = _owners(row_tokens, step.tokens)
    slot = row_slot[row]
    position = row_start[row] + torch.arange(step.tokens, device=tokens.device)
    position -= (row_end - row_tokens)[row]
    page = pages[slot.long(), position // page_size].long()
    inputs.token_ids[: step.tokens] = tokens[slot.long(), position].long()
    inputs.positions[: step.tokens] = position
    inputs.cache_index[: step.tokens] = page * page_size + position % page_size
    inputs.token_slots[: step.tokens] = slot
    inputs.absorbed_context[: step.absorbed_tokens] = position[: step.absorbed_tokens] + 1

    first, expanded = step.absorbed_rows, step.rows - step.absorbed_rows
    inputs.expanded_slots[:expanded] = row_slot[first:]
    inputs.query_start[0] = 0
    inputs.query_start[1 : 1 + expanded] = row_end[first:] - step.absorbed_tokens
    inputs.expanded_context[:expanded] = (row_start + row_tokens)[first:]

    samples = array("row_samples", step.rows) != 0
    if step.sampling_rows < step.rows:
        kept = torch.argsort(~samples, stable=True)[: step.sampling_rows]  # its size is known here
        row_end, row_slot = row_end[kept], row_slot[kept]
        row_start, row_tokens = row_start[kept], row_tokens[kept]
    inputs.sample_index[: step.sampling_rows] = row_end - 1
    inputs.sample_slots[: step.sampling_rows] = row_slot
    inputs.sample_positions[: step.sampling_rows] = row_start + row_tokens


def append_tokens(tokens: Tensor, slots: Tensor, positions: Tensor, ids: Tensor) -> None:
    tokens[slots, positions] = ids.clamp(min=0).to(torch.int32)


def _owners(counts: Tensor, total: int) -> Tensor:
    """0 counts[0] times, then 1 counts[1] times …: [total]."""
    index = torch.arange(len(counts), device=counts.device)
    return index.repeat_interleave(counts, output_size=total)
