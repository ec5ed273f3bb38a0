# SPDX-License-Identifier: MIT
"""The persistent per-sequence tables; a plan only patches them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import ts_scheduler

from dynamo_tokenspeed.protocol import SAMPLING_DTYPE


class SlotTables:
    """One row per slot: token history, pages, sampling parameters.

    tokens: [max_num_seqs, max_model_len] int32, on the device
    pages: [max_num_seqs, pages per sequence] int32, on the device
    sampling: [max_num_seqs] SAMPLING_DTYPE, on the host
    prompt_tokens: [max_num_seqs] int32, on the host: how much of the history is the prompt
    requests: [max_num_seqs] uint64, on the host: who took the slot last
    """

    def __init__(
        self, max_num_seqs: int, max_model_len: int, page_size: int, device: torch.device
    ) -> None:
        columns = -(-max_model_len // page_size)
        self.tokens = torch.zeros((max_num_seqs, max_model_len), dtype=torch.int32, device=device)
        self.pages = torch.zeros((max_num_seqs, columns), dtype=torch.int32, device=device)
        self.sampling = np.zeros(max_num_seqs, SAMPLING_DTYPE)
        self.prompt_tokens: npt.NDArray[np.int32] = np.zeros(max_num_seqs, np.int32)
        self.requests: npt.NDArray[np.uint64] = np.zeros(max_num_seqs, np.uint64)

    def patch(self, plan: ts_scheduler.Plan) -> None:
        """Apply what the plan changed: admissions, then new pages."""
        if len(plan.admitted_slot):
            self._admit(plan)
        if len(plan.page_patch):
            slot, column, page = self._on_device(plan.page_patch).unbind(1)
            self.pages[slot.long(), column.long()] = page

    def append(
        self,
        slots: npt.NDArray[np.int32],
        context: npt.NDArray[np.int32],
        token_ids: torch.Tensor,
    ) -> None:
        """Write each slot's sampled token after its `context` tokens.

        With overlap the next step reads it before anybody knows that a row was unsampleable: it
        finds a token, as good as any for a request that has failed.
        """
        row = self._on_device(slots.astype(np.int64))
        column = self._on_device(context.astype(np.int64))
        self.tokens[row, column] = token_ids.clamp(min=0).to(torch.int32)

    def _admit(self, plan: ts_scheduler.Plan) -> None:
        slots, offset = plan.admitted_slot, plan.admitted_offset
        count = np.diff(offset)
        row = self._on_device(np.repeat(slots, count).astype(np.int64))
        column = self._on_device(np.arange(offset[-1]) - np.repeat(offset[:-1], count))
        self.tokens[row, column.long()] = self._on_device(plan.admitted_tokens[: offset[-1]])
        self.sampling[slots] = plan.admitted_params.view(SAMPLING_DTYPE)[:, 0]
        self.prompt_tokens[slots] = plan.admitted_prompt_tokens
        self.requests[slots] = plan.admitted_request

    def _on_device(self, array: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.tokens.device, non_blocking=True)
