# SPDX-License-Identifier: MIT
"""Multi-head latent attention that reads the pages where they are."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels import _native

BF16 = torch.bfloat16


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
    tokens, rank = latent.shape
    pages, page_size, width = kv.shape
    latent_token, step = latent.stride()
    if step != 1:
        latent = latent.contiguous()
        latent_token = rank
    rope_token, step = rope_key.stride()
    if step != 1:
        rope_key = rope_key.contiguous()
        rope_token = rope_key.shape[1]
    norm_weight, cos_sin = norm_weight.contiguous(), cos_sin.contiguous()
    positions, cache_index = positions.contiguous(), cache_index.contiguous()
    _native.mla_cache_write(
        kv.dtype is BF16,
        kv.data_ptr(),
        latent.data_ptr(),
        rope_key.data_ptr(),
        norm_weight.data_ptr(),
        cos_sin.data_ptr(),
        positions.data_ptr(),
        cache_index.data_ptr(),
        tokens,
        rank,
        width - rank,
        page_size,
        kv.stride(0),
        latent_token,
        rope_token,
        pages,
        cos_sin.shape[0],
        eps,
    )


def mla_decode(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    slots: Tensor,
    context_lens: Tensor,
    scale: float,
    kv_lora_rank: int = 512,
) -> Tensor:
    rows, q_tokens, heads, width = q.shape
    q_row, q_token, q_head, step = q.stride()
    if step != 1:
        q = q.contiguous()
        q_row, q_token, q_head, _ = q.stride()
    block_table = _rows_of(block_table)
    # A copy must outlive the call: what is passed is its address.
    slots, context_lens = slots.contiguous(), context_lens.contiguous()
    out = q.new_empty(rows, q_tokens, heads, kv_lora_rank)
    _native.mla_decode(
        q.dtype is BF16,
        q.data_ptr(),
        kv.data_ptr(),
        block_table.data_ptr(),
        slots.data_ptr(),
        context_lens.data_ptr(),
        out.data_ptr(),
        rows,
        q_tokens,
        heads,
        kv_lora_rank,
        width - kv_lora_rank,
        kv.shape[1],
        kv.stride(0),
        block_table.stride(0),
        q_row,
        q_token,
        q_head,
        scale,
    )
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
    tokens, heads, q_width = q.shape
    rank = w_kv_b.shape[2]
    rope = kv.shape[2] - rank
    nope = q_width - rope
    value = w_kv_b.shape[1] - nope
    if q.stride(2) != 1:
        q = q.contiguous()
    block_table = _rows_of(block_table)
    slots, context_lens = slots.contiguous(), context_lens.contiguous()
    query_start, w_kv_b = query_start.contiguous(), w_kv_b.contiguous()
    out = q.new_empty(tokens, heads, value)
    _native.mla_prefill(
        q.dtype is BF16,
        q.data_ptr(),
        kv.data_ptr(),
        w_kv_b.data_ptr(),
        block_table.data_ptr(),
        slots.data_ptr(),
        query_start.data_ptr(),
        context_lens.data_ptr(),
        out.data_ptr(),
        tokens,
        context_lens.shape[0],
        heads,
        nope,
        rope,
        value,
        rank,
        kv.shape[1],
        kv.stride(0),
        block_table.stride(0),
        q.stride(0),
        q.stride(1),
        scale,
    )
    return out


def _rows_of(block_table: Tensor) -> Tensor:
    return block_table if block_table.stride(1) == 1 else block_table.contiguous()
