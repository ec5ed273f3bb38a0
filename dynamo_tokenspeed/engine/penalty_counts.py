# SPDX-License-Identifier: MIT
"""What each sequence with a penalty has seen, counted as it grows and not read again every step."""

from __future__ import annotations

import numpy as np
import torch
import ts_scheduler
from torch import Tensor
from ts_kernels import Penalties, is_penalised

from dynamo_tokenspeed.engine.slot_tables import SlotTables


class PenaltyCounts:
    """counts: [max_num_seqs, vocab] int32, on the device: twice how often a token was generated,
    plus one if it stands in the prompt. None before anybody asks for a penalty.

    Only the rows of slots whose request has a penalty mean anything.
    """

    def __init__(self, vocab_size: int) -> None:
        """vocab_size: columns of the logits."""
        self.counts: Tensor | None = None
        self._vocab_size = vocab_size

    def admit(self, plan: ts_scheduler.Plan, tables: SlotTables) -> None:
        """Count the histories of the slots that the plan has filled."""
        penalised = is_penalised(tables.sampling[plan.admitted_slot])
        for index in np.flatnonzero(penalised).tolist():
            slot = int(plan.admitted_slot[index])
            total = int(plan.admitted_offset[index + 1] - plan.admitted_offset[index])
            prompt = int(plan.admitted_prompt_tokens[index])
            history = tables.tokens[slot, :total].long()
            if self.counts is None:
                shape = len(tables.sampling), self._vocab_size
                self.counts = torch.zeros(shape, dtype=torch.int32, device=history.device)
            row = self.counts[slot].zero_().index_fill_(0, history[:prompt], 1)
            generated = history[prompt:]
            row.scatter_add_(0, generated, torch.full_like(generated, 2, dtype=torch.int32))

    def append(self, penalties: Penalties, token_ids: Tensor) -> None:
        """Count what the rows with a penalty got; token_ids: [rows of the step]."""
        token = token_ids[penalties.row].clamp_(min=0)  # an unsampleable row's request has failed
        penalties.counts[penalties.slot, token] += 2
