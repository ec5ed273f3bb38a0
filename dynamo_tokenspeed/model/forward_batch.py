# SPDX-License-Identifier: MIT
"""One step's rows, flattened to tokens: the input of `CausalLM.forward`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(slots=True)
class ForwardBatch:
    """What one step computes: T tokens, of which the first `num_absorbed_tokens` are computed in
    the absorbed form, each for itself, and the rest in the expanded form, in E rows.

    The form is a function of the token's request alone (scheduler_cpp/include/ts/forms.h), and the
    same token in the same form gives the same bits in any batch. `query_start` counts from the
    first expanded token. `context_lens` counts an expanded row's tokens including those of this
    step. `sample_index` is strictly increasing; these tokens, and only they, have logits.
    """

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64, of each token in its sequence
    cache_index: Tensor  # [T] int64, page * page_size + offset where its KV goes
    block_table: Tensor  # [slots, columns] int32, the slot tables' own
    token_slots: Tensor  # [T] int32, each token's row of the block table
    absorbed_context_lens: Tensor  # [num_absorbed_tokens] int32, what each sees, itself included
    expanded_slots: Tensor  # [E] int32
    query_start: Tensor  # [E+1] int32
    context_lens: Tensor  # [E] int32
    sample_index: Tensor  # [S] int64

    @property
    def num_absorbed_tokens(self) -> int:
        return len(self.absorbed_context_lens)

    @property
    def is_absorbed_and_sampled(self) -> bool:
        """Every token is: the step decodes, and nothing else."""
        return len(self.sample_index) == self.num_absorbed_tokens == len(self.token_ids)

    def sampled(self) -> ForwardBatch:
        """The sampled tokens alone, all of them absorbed: what is left to compute once the last
        layer's cache is written."""
        tokens = self.sample_index
        positions = self.positions.index_select(0, tokens)
        return ForwardBatch(
            token_ids=self.token_ids.index_select(0, tokens),
            positions=positions,
            cache_index=self.cache_index.index_select(0, tokens),
            block_table=self.block_table,
            token_slots=self.token_slots.index_select(0, tokens),
            absorbed_context_lens=(positions + 1).to(torch.int32),
            expanded_slots=self.expanded_slots[:0],
            query_start=self.query_start[:1],
            context_lens=self.context_lens[:0],
            sample_index=torch.arange(len(tokens), device=tokens.device),
        )
