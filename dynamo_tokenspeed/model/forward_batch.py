# SPDX-License-Identifier: MIT
"""One step's rows, flattened to tokens: the input of `CausalLM.forward`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class ForwardBatch:
    """What one step computes. T tokens of R rows; the `num_decode_rows` rows with exactly one
    token come first, so token i of the batch belongs to row i for i < num_decode_rows.

    `context_lens` counts a row's tokens including those of this step. `sample_index` is strictly
    increasing: with S == T it is 0 … T-1.
    """

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    cache_index: Tensor  # [T] int64, page * page_size + offset: where the token's KV goes
    num_decode_rows: int
    block_table: Tensor  # [R, columns] int32, padded with any valid page
    query_start: Tensor  # [R + 1] int32, first token of each row
    context_lens: Tensor  # [R] int32
    sample_index: Tensor  # [S] int64, tokens whose logits are wanted
