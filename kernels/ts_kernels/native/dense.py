# SPDX-License-Identifier: MIT
"""Matrix products: at memory speed for few tokens, register-tiled for many."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels import _native

BF16 = torch.bfloat16


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, out_dtype: torch.dtype | None = None
) -> Tensor:
    dtype = x.dtype
    out_dtype = out_dtype or dtype
    if out_dtype is not dtype and out_dtype is not torch.float32:
        raise ValueError(f"out_dtype is {out_dtype}, but must be {dtype} or torch.float32")
    tokens, k = x.shape
    n = weight.shape[0]
    x_token, x_step = x.stride()
    w_row, w_step = weight.stride()
    if x_step != 1 and k != 1:
        x = x.contiguous()
        x_token = k
    if w_step != 1 and k != 1:
        weight = weight.contiguous()
        w_row = k
    if bias is not None:
        bias = bias.contiguous()
    # new_empty takes half the time of torch.empty.
    out = x.new_empty(tokens, n) if out_dtype is dtype else x.new_empty(tokens, n, dtype=out_dtype)
    _native.linear(
        dtype is BF16,
        out_dtype is torch.float32,
        x.data_ptr(),
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        out.data_ptr(),
        1,
        tokens,
        n,
        k,
        0,
        x_token,
        0,
        w_row,
        1,
        0,
        n,
    )
    return out


def head_linear(x: Tensor, weight: Tensor) -> Tensor:
    tokens, heads, k = x.shape
    n = weight.shape[1]
    dtype = x.dtype
    x_token, x_head, x_step = x.stride()
    if x_step != 1:
        x = x.contiguous()
        x_token, x_head, _ = x.stride()
    w_head, w_row, w_k = weight.stride()
    if w_k != 1 and w_row != 1:
        weight = weight.contiguous()
        w_head, w_row, w_k = weight.stride()
    out = x.new_empty(tokens, heads, n)
    _native.linear(
        dtype is BF16,
        dtype is torch.float32,
        x.data_ptr(),
        weight.data_ptr(),
        0,
        out.data_ptr(),
        heads,
        tokens,
        n,
        k,
        x_head,
        x_token,
        w_head,
        w_row,
        w_k,
        n,
        heads * n,
    )
    return out
