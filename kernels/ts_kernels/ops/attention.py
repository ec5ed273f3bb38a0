# SPDX-License-Identifier: MIT
"""Multi-head latent attention over a paged cache (DeepSeek-V2, section 2.1).

`kv`: one layer of the pool, [pages, page_size, kv_lora_rank + rope_dim], contiguous: the normed
latent, then the rotated key that all heads share. What stands behind a row's context may be NaN,
left by a request that went wrong, and must not matter. `block_table`: [S, columns] int32, the pages
of each sequence in order; what stands behind a row's last page is never read. `slots`: [R] int32,
row r reads row slots[r] of the block table, and several rows may read the same. Lengths are int32
and count tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels.ops import checks
from ts_kernels.ops.dispatch import ops_for


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
    """Norms and turns one entry per token and stores it, in place.

    What is stored is rms_norm(latent, norm_weight, eps), then rope_interleaved(rope_key, …), each
    rounded as these ops round it.

    latent: [T, kv_lora_rank]. rope_key: [T, rope_dim]. norm_weight: [kv_lora_rank]. All in kv's
    dtype. cos_sin: [max_pos, rope_dim] fp32 and positions: [T] int64, as in `rope_interleaved`.
    cache_index: [T] int64, page * page_size + offset, no two alike. ValueError: widths do not add
    up, or a dtype differs.
    """
    checks.shape("kv", kv, None, None, None)
    if kv.stride()[1:] != (kv.shape[2], 1):
        raise ValueError(f"kv's pages are strided {list(kv.stride()[1:])}, but must be contiguous")
    checks.shape("latent", latent, None, None)
    checks.shape("rope_key", rope_key, latent.shape[0], kv.shape[2] - latent.shape[1])
    checks.shape("cache_index", cache_index, latent.shape[0])
    checks.dtype("cache_index", cache_index, torch.int64)
    checks.dtype("latent", latent, kv.dtype)
    checks.dtype("rope_key", rope_key, kv.dtype)
    checks.shape("norm_weight", norm_weight, latent.shape[1])
    checks.dtype("norm_weight", norm_weight, kv.dtype)
    checks.shape("cos_sin", cos_sin, None, rope_key.shape[1])
    checks.dtype("cos_sin", cos_sin, torch.float32)
    checks.shape("positions", positions, latent.shape[0])
    checks.dtype("positions", positions, torch.int64)
    ops_for(kv).mla_cache_write(
        kv, latent, rope_key, norm_weight, cos_sin, positions, cache_index, eps
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
    """Attention in the absorbed form: keys are the cache's entries, values their latent parts.

    softmax(scale * q · kv) @ kv[..., :kv_lora_rank], the softmax in fp32, with the queries already
    multiplied by W_uk.

    q: [R, Tq, H, kv_lora_rank + rope_dim], rope part last, in kv's dtype. context_lens: [R], the
    row's tokens including the Tq queries, which are its last: query i of Tq sees
    context_lens - Tq + 1 + i entries. → [R, Tq, H, kv_lora_rank].
    """
    checks.shape("kv", kv, None, None, None)
    checks.shape("q", q, None, None, None, kv.shape[2])
    _check_rows(block_table, slots, context_lens, q.shape[0])
    checks.dtype("q", q, kv.dtype)
    if not 0 < kv_lora_rank <= kv.shape[2]:
        raise ValueError(f"kv_lora_rank is {kv_lora_rank}, but kv is {kv.shape[2]} wide")
    return ops_for(q).mla_decode(q, kv, block_table, slots, context_lens, scale, kv_lora_rank)


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
    """Attention in the expanded form: each head's keys and values are computed from the latents.

    With c the latent of a cached token: key = [w_kv_b[h, :nope] @ c, rope key], value =
    w_kv_b[h, nope:] @ c; then softmax(scale * q · key) @ value, the softmax in fp32.

    q: [T, H, nope + rope_dim], rope part last, in kv's dtype. query_start: [R+1] int32, row r owns
    the tokens query_start[r] … query_start[r+1]-1. context_lens: [R], the row's tokens including
    those, which are its last and see what is before them and themselves. w_kv_b: [H, nope + v,
    kv_lora_rank] in kv's dtype. → [T, H, v].
    """
    checks.shape("kv", kv, None, None, None)
    checks.shape("q", q, None, None, None)
    checks.shape("w_kv_b", w_kv_b, q.shape[1], None, None)
    _check_rows(block_table, slots, context_lens, query_start.shape[0] - 1)
    checks.dtype("query_start", query_start, torch.int32)
    checks.dtype("q", q, kv.dtype)
    checks.dtype("w_kv_b", w_kv_b, kv.dtype)
    rope_dim = kv.shape[2] - w_kv_b.shape[2]
    if not 0 <= rope_dim < q.shape[2] < w_kv_b.shape[1] + rope_dim:
        raise ValueError(
            f"q is {q.shape[2]} wide, kv {kv.shape[2]} and w_kv_b {list(w_kv_b.shape)}: they do "
            "not agree on kv_lora_rank, rope_dim, nope and v"
        )
    return ops_for(q).mla_prefill(
        q, kv, block_table, slots, query_start, context_lens, w_kv_b, scale
    )


def _check_rows(block_table: Tensor, slots: Tensor, context_lens: Tensor, rows: int) -> None:
    checks.shape("block_table", block_table, None, None)
    checks.shape("slots", slots, rows)
    checks.shape("context_lens", context_lens, rows)
    checks.dtype("block_table", block_table, torch.int32)
    checks.dtype("slots", slots, torch.int32)
    checks.dtype("context_lens", context_lens, torch.int32)
