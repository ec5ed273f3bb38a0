# SPDX-License-Identifier: MIT
"""The persistent per-sequence tables; a plan only patches them: those on the device by the op
`prepare_step`, those on the host here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import ts_scheduler
from ts_kernels import is_greedy

from dynamo_tokenspeed.protocol import SAMPLING_DTYPE


class SlotTables:
    """One row per slot: token history, pages, sampling parameters.

    tokens: [max_num_seqs, max_model_len] int32, on the device
    pages: [max_num_seqs, pages per sequence] int32, on the device
    sampling: [max_num_seqs] SAMPLING_DTYPE, on the host
    greedy: [max_num_seqs] bool, on the host: takes the most likely token and asks for nothing else
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
        self.greedy: npt.NDArray[np.bool_] = np.zeros(max_num_seqs, np.bool_)
        self.prompt_tokens: npt.NDArray[np.int32] = np.zeros(max_num_seqs, np.int32)
        self.requests: npt.NDArray[np.uint64] = np.zeros(max_num_seqs, np.uint64)

    def admit(self, plan: ts_scheduler.Plan) -> None:
        """What the plan's admissions change on the host."""
        slots = plan.admitted_slot
        if not len(slots):
            return
        records = plan.admitted_params.view(SAMPLING_DTYPE)[:, 0]
        self.sampling[slots] = records
        self.greedy[slots] = is_greedy(records) & (records["logprobs"] < 0)
        self.prompt_tokens[slots] = plan.admitted_prompt_tokens
        self.requests[slots] = plan.admitted_request
