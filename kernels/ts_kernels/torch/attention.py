# SPDX-License-Identifier: MIT
"""Multi-head latent attention over a paged cache, all rows at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mla_cache_write(kv: Tensor, latent: Tensor, rope_key: Tensor, cache_index: Tensor) -> None:
    entries = torch.cat([latent, rope_key], dim=-1)
    kv.view(-1, kv.shape[-1]).index_copy_(0, cache_index, entries)


def mla_decode(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    context_lens: Tensor,
    scale: float,
    kv_lora_rank: int = 512,
) -> Tensor:
    rows, query_tokens, heads, width = q.shape
    context = _gather(kv, block_table, context_lens)
    scores = torch.bmm(q.view(rows, -1, width), context.transpose(1, 2)).float() * scale
    scores = scores.view(rows, query_tokens, heads, -1)
    position = torch.arange(context.shape[1], device=q.device)
    visible = (
        context_lens[:, None] - query_tokens + torch.arange(1, query_tokens + 1, device=q.device)
    )
    scores.masked_fill_(position >= visible[:, :, None, None], -torch.inf)
    probabilities = torch.softmax(scores, dim=-1).to(q.dtype).view(rows, query_tokens * heads, -1)
    out = torch.bmm(probabilities, context[..., :kv_lora_rank])
    return out.view(rows, query_tokens, heads, kv_lora_rank)


def mla_prefill(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    query_start: Tensor,
    context_lens: Tensor,
    w_kv_b: Tensor,
    scale: float,
) -> Tensor:
    rows = context_lens.shape[0]
    tokens, heads, _ = q.shape
    rank = w_kv_b.shape[-1]
    nope = q.shape[-1] - (kv.shape[-1] - rank)
    context = _gather(kv, block_table, context_lens)
    expanded = F.linear(context[..., :rank], w_kv_b.flatten(0, 1))
    expanded = expanded.view(rows, -1, heads, w_kv_b.shape[1]).transpose(1, 2)
    rope_key = context[:, None, :, rank:].expand(-1, heads, -1, -1)
    keys = torch.cat([expanded[..., :nope], rope_key], dim=-1)

    lengths = query_start.diff()
    longest = int(lengths.max())
    row = torch.repeat_interleave(torch.arange(rows, device=q.device), lengths, output_size=tokens)
    column = torch.arange(tokens, device=q.device) - query_start[row]
    padded = q.new_zeros(rows, longest, heads, q.shape[-1])
    padded[row, column] = q
    first = (context_lens - lengths)[:, None] + torch.arange(longest, device=q.device)
    visible = torch.arange(context.shape[1], device=q.device) <= first[..., None]
    out = F.scaled_dot_product_attention(
        padded.transpose(1, 2), keys, expanded[..., nope:], attn_mask=visible[:, None], scale=scale
    )
    return out.transpose(1, 2)[row, column]


def _gather(kv: Tensor, block_table: Tensor, context_lens: Tensor) -> Tensor:
    """Every row's context, padded to the longest: [R, pages * page_size, width]."""
    pages = -(-int(context_lens.max()) // kv.shape[1])
    return kv[block_table[:, :pages].long()].flatten(1, 2)
