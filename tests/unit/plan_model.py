# SPDX-License-Identifier: MIT
"""What a plan says of a step, field by field; see scheduler_model.py."""

from __future__ import annotations

from typing import Any

from scheduler_model_state import Row, Sequence, Step, Transfer

NOBODY = 2**64 - 1  # Plan.transfer_request of a store


def what_the_device_is_told(step: Step) -> dict[str, Any]:
    rows = step.rows = sorted(step.rows, key=expands)  # absorbed ones come first
    admitted, transfers = step.admitted, step.transfers
    return {
        "step": step.number,
        "num_rows": len(rows),
        "num_absorbed_rows": sum(not expands(row) for row in rows),
        "num_tokens": step.num_tokens,
        "row_slot": [row.sequence.slot for row in rows],
        "row_start": [row.start for row in rows],
        "row_tokens": [row.tokens for row in rows],
        "row_samples": [row.samples for row in rows],
        "admitted_slot": [s.slot for s in admitted],
        "admitted_request": [s.request.request_id for s in admitted],
        "admitted_offset": offsets([len(s.request.tokens) for s in admitted]),
        "admitted_prompt_tokens": [s.request.prompt_length for s in admitted],
        "admitted_tokens": [token for s in admitted for token in s.request.tokens],
        "admitted_params": [list(s.request.params) for s in admitted],
        "page_patch": [patch for row in rows for patch in page_patches(row.sequence)],
        "group_page_patch": step.group_patches,
        "transfer_id": [transfer.number for transfer in transfers],
        "transfer_kind": [transfer.kind for transfer in transfers],
        "transfer_request": [owner(transfer) for transfer in transfers],
        "transfer_offset": offsets([len(transfer.device_pages) for transfer in transfers]),
        "transfer_device_page": [page for t in transfers for page in t.device_pages],
        "transfer_host_page": [page for t in transfers for page in t.host_pages],
    }


def expands(row: Row) -> bool:
    return row.start < row.sequence.request.expanded_length


def page_patches(sequence: Sequence) -> list[list[int]]:
    """Entries of the block table that the device does not have yet."""
    columns = range(sequence.sent, len(sequence.pages))
    sequence.sent = len(sequence.pages)
    return [[sequence.slot, column, sequence.pages[column]] for column in columns]


def owner(transfer: Transfer) -> int:
    return NOBODY if transfer.sequence is None else transfer.sequence.request.request_id


def offsets(lengths: list[int]) -> list[int]:
    return [sum(lengths[:i]) for i in range(len(lengths) + 1)]
