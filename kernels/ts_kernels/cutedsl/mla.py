# SPDX-License-Identifier: MIT
"""mla_decode: attention in MLA's absorbed form over a paged cache, by the kernel of the device."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ts_kernels.ops import checks

LATENT, ROPE = 512, 64
WIDTH = LATENT + ROPE
MAX_HEADS, MAX_QUERY_TOKENS = 128, 8
PAGE_SIZES = (16, 32, 64, 128)


def mla_decode(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    slots: Tensor,
    context_lens: Tensor,
    scale: float,
    kv_lora_rank: int = LATENT,
    *,
    kv_scale: float = 1.0,
    out: Tensor | None = None,
    lse: Tensor | None = None,
    workspace: Tensor | None = None,
    ctas: int | None = None,
) -> Tensor:
    """ts_kernels.mla_decode on Blackwell: softmax(scale q · kv) @ kv[..., :512], softmax in fp32.

    q: [R, Tq, H, 576], rope part last, contiguous; 1 to 128 heads, 1 to 8 query tokens, which
    are the last of a row's context. kv: [pages, page_size, 576], page_size 16, 32, 64 or 128. Both
    are bf16 or both e4m3; what kv stands for is kv_scale times its numbers (a scale of q is part of
    `scale`).
    block_table: [S, columns], slots: [R], context_lens: [R], all int32: row r reads row slots[r] of
    the table, and of it no column that its context does not need. A row of length 0 yields zeros.

    out: [R, Tq, H, 512] bf16. lse: [R, Tq, H] fp32, the natural logarithm of the sum of exponents,
    -inf where nothing is seen. workspace: `workspace_size(...)` fp32. Given these, nothing is
    allocated. ctas: how many CTAs share the work, by default the device's SMs. Nothing is read back
    to the host. ValueError: an argument that the kernel cannot take.
    """
    _check(q, kv, block_table, slots, context_lens, scale * kv_scale, kv_lora_rank)
    rows, tokens, heads, _ = q.shape
    if ctas is None:
        ctas = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
    group_rows = rows_of_a_group(heads, tokens)
    places = 2 * ctas * group_rows
    if out is None:
        out = q.new_empty(rows, tokens, heads, LATENT, dtype=torch.bfloat16)
    if lse is None:
        lse = q.new_empty(rows, tokens, heads, dtype=torch.float32)
    if workspace is None:
        workspace = q.new_empty(places * (LATENT + 1), dtype=torch.float32)
    checks.shape("out", out, rows, tokens, heads, LATENT)
    checks.shape("lse", lse, rows, tokens, heads)
    checks.dtype("out", out, torch.bfloat16)
    checks.dtype("lse", lse, torch.float32)
    checks.dtype("workspace", workspace, torch.float32)
    for name, tensor in (("out", out), ("lse", lse), ("workspace", workspace)):
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is strided {list(tensor.stride())}, but must be contiguous")
    if rows == 0:
        return out
    if workspace.numel() < places * (LATENT + 1):
        raise ValueError(
            f"workspace has {workspace.numel()} elements, but {ctas} CTAs need "
            f"{places * (LATENT + 1)} (workspace_size)"
        )
    _compiled(heads, tokens, kv.shape[1], kv.dtype == torch.float8_e4m3fn)(
        q.view(rows, tokens * heads, WIDTH),
        kv,
        block_table,
        slots,
        context_lens,
        out.view(rows, tokens * heads, LATENT),
        lse.view(rows, tokens * heads),
        workspace[: places * LATENT].view(2 * ctas, group_rows, LATENT),
        workspace[places * LATENT : places * (LATENT + 1)].view(2 * ctas, group_rows),
        scale * kv_scale,
        kv_scale,
        ctas,
    )
    return out


def rows_of_a_group(heads: int, tokens: int) -> int:
    """Query rows that a CTA attends to at a time: 16, 32 or 64."""
    return next((n for n in (16, 32) if heads * tokens <= n), 64)


def workspace_size(heads: int, tokens: int, ctas: int) -> int:
    """Elements (fp32) of `workspace`: two partial results for each CTA."""
    return 2 * ctas * rows_of_a_group(heads, tokens) * (LATENT + 1)


def _check(
    q: Tensor,
    kv: Tensor,
    block_table: Tensor,
    slots: Tensor,
    context_lens: Tensor,
    scale: float,
    kv_lora_rank: int,
) -> None:
    checks.shape("q", q, None, None, None, WIDTH)
    checks.shape("kv", kv, None, None, WIDTH)
    checks.shape("block_table", block_table, None, None)
    checks.shape("slots", slots, q.shape[0])
    checks.shape("context_lens", context_lens, q.shape[0])
    checks.dtype("kv", kv, torch.bfloat16, torch.float8_e4m3fn)
    checks.dtype("q", q, kv.dtype)
    for name, tensor in (
        ("block_table", block_table),
        ("slots", slots),
        ("context_lens", context_lens),
    ):
        checks.dtype(name, tensor, torch.int32)
    if kv_lora_rank != LATENT:
        raise ValueError(f"kv_lora_rank is {kv_lora_rank}, but the kernel is made for {LATENT}")
    if not 1 <= q.shape[2] <= MAX_HEADS:
        raise ValueError(f"q has {q.shape[2]} heads, but the kernel takes 1 to {MAX_HEADS}")
    if not 1 <= q.shape[1] <= MAX_QUERY_TOKENS:
        raise ValueError(
            f"q has {q.shape[1]} query tokens, but the kernel takes 1 to {MAX_QUERY_TOKENS}"
        )
    if kv.shape[1] not in PAGE_SIZES:
        raise ValueError(f"kv has pages of {kv.shape[1]} tokens, but the kernel takes {PAGE_SIZES}")
    if not q.is_contiguous():
        raise ValueError(f"q is strided {list(q.stride())}, but must be contiguous")
    if kv.stride()[1:] != (WIDTH, 1):
        raise ValueError(f"kv's pages are strided {list(kv.stride()[1:])}, but must be contiguous")
    if kv.stride(0) % 16 != 0:
        raise ValueError(f"kv's pages are {kv.stride(0)} elements apart: no multiple of 16")
    if block_table.stride(1) != 1:
        raise ValueError(
            f"block_table's columns are {block_table.stride(1)} apart, but must adjoin"
        )
    if not scale > 0:
        raise ValueError(f"scale is {scale}, but must be positive")


@functools.cache
def _compiled(heads: int, tokens: int, page_size: int, fp8: bool) -> Any:
    from ts_kernels.cutedsl.mla_compile import compile_decode

    return compile_decode(heads, tokens, page_size, fp8)
