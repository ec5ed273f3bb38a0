# SPDX-License-Identifier: MIT
"""What all layers of latent attention share in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamo_tokenspeed.model.forward_batch import ForwardBatch


@dataclass(slots=True)
class MlaMetadata:
    """Where the tokens of a forward pass are, and how each attends.

    The first tokens attend in the absorbed form, each for itself; `absorbed_context_lens` has one
    entry for each. The rest attends in the expanded form, row by row.
    """

    positions: Tensor
    cache_index: Tensor
    block_table: Tensor
    token_slots: Tensor
    absorbed_context_lens: Tensor
    expanded_slots: Tensor
    query_start: Tensor
    context_lens: Tensor

    @classmethod
    def of(cls, batch: ForwardBatch) -> MlaMetadata:
        return cls(
            positions=batch.positions,
            cache_index=batch.cache_index,
            block_table=batch.block_table,
            token_slots=batch.token_slots,
            absorbed_context_lens=_own_context(batch.positions[: batch.num_absorbed_tokens]),
            expanded_slots=batch.expanded_slots,
            query_start=batch.query_start,
            context_lens=batch.context_lens,
        )

    @classmethod
    def of_sampled(cls, batch: ForwardBatch) -> MlaMetadata:
        """The sampled tokens alone, all of them absorbed: what is left to compute once the last
        layer's cache is written."""
        tokens = batch.sample_index
        positions = batch.positions.index_select(0, tokens)
        return cls(
            positions=positions,
            cache_index=batch.cache_index.index_select(0, tokens),
            block_table=batch.block_table,
            token_slots=batch.token_slots.index_select(0, tokens),
            absorbed_context_lens=_own_context(positions),
            expanded_slots=batch.expanded_slots[:0],
            query_start=batch.query_start[:1],
            context_lens=batch.context_lens[:0],
        )


def _own_context(positions: Tensor) -> Tensor:
    """How many cached tokens each token sees, itself included."""
    return (positions + 1).to(torch.int32)
