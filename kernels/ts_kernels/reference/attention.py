# SPDX-License-Identifier: MIT
"""Multi-head latent attention over a paged cache, one row at a time, in fp32."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels.reference.norm import rms_norm
from ts_kernels.reference.rope import rope_interleaved


def mla_cache_write(
    kv: Tensor,
    latent: Tensor,
    rope_key: Tensor,
    norm_weight: Tensor,
    cos_sin: Tensor,
    positions: Tensor,
    cache_index: Tensor,
    eps: float,
) -> None:
    page_size = kv.shape[1]
    latent = rms_norm(latent, norm_weight, eps)
    key = rope_interleaved(rope_key[:, None], positions, cos_sin)[:, 0]
    for token, index in enumerate(cache_index.tolist()):
        entry = torch.cat([latent[token], key[token]])
        kv[index // page_size, index % page_size] = entry


def mla_decode(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    slots: Tensor,
    context_lens: Tensor,
    scale: float,
    kv_lora_rank: int = 512,
) -> Tensor:
    query_tokens = q.shape[1]
    out = q.new_zeros(*q.shape[:3], kv_lora_rank)
    for row, length in enumerate(context_lens.tolist()):
        context = _context(kv, block_table[slots[row]], length)
        for i in range(query_tokens):
            visible = context[: length - query_tokens + i + 1]
            probabilities = torch.softmax(q[row, i].float() @ visible.T * scale, dim=-1)
            out[row, i] = (probabilities @ visible[:, :kv_lora_rank]).to(q.dtype)
    return out


def mla_prefill(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    slots: Tensor,
    query_start: Tensor,
    context_lens: Tensor,
    w_kv_b: Tensor,
    scale: float,
) -> Tensor:
    heads, expanded, rank = w_kv_b.shape
    nope = q.shape[-1] - (kv.shape[-1] - rank)
    out = q.new_zeros(q.shape[0], heads, expanded - nope)
    start = query_start.tolist()
    for row, length in enumerate(context_lens.tolist()):
        context = _context(kv, block_table[slots[row]], length)
        latent, rope_key = context[:, :rank], context[:, rank:]
        queries = start[row + 1] - start[row]
        for head in range(heads):
            keys = torch.cat([latent @ w_kv_b[head, :nope].float().T, rope_key], dim=1)
            values = latent @ w_kv_b[head, nope:].float().T
            for i in range(queries):
                token, visible = start[row] + i, length - queries + i + 1
                scores = keys[:visible] @ q[token, head].float() * scale
                probabilities = torch.softmax(scores, dim=-1)
                out[token, head] = (probabilities @ values[:visible]).to(q.dtype)
    return out


def _context(kv: Tensor, pages: Tensor, length: int) -> Tensor:
    """The `length` cached entries of one row, in order: [length, kv_lora_rank + rope_dim] fp32."""
    columns = -(-length // kv.shape[1])
    return kv[pages[:columns].long()].flatten(0, 1)[:length].float()
