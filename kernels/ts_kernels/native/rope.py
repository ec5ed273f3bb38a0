# SPDX-License-Identifier: MIT
"""Rotary position embedding of interleaved pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels import _native
from ts_kernels.native.dtypes import BF16, DTYPES
from ts_kernels.ops import checks
from ts_kernels.ops.rope import check_rope


def rope_interleaved(x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
    tokens, heads, width = x.shape
    dtype = x.dtype
    max_positions, columns = cos_sin.shape
    if (
        positions.numel() != tokens
        or positions.dtype is not torch.int64
        or columns != width
        or cos_sin.dtype is not torch.float32
        or dtype not in DTYPES
    ):
        checks.dtype("x", x, *DTYPES)
        check_rope(x, positions, cos_sin)
    x_token, x_head, step = x.stride()
    if step != 1:
        x = x.contiguous()
        x_token, x_head, _ = x.stride()
    positions, cos_sin = positions.contiguous(), cos_sin.contiguous()
    out = x.new_empty(tokens, heads, width)
    _native.rope_interleaved(
        dtype is BF16,
        x.data_ptr(),
        positions.data_ptr(),
        cos_sin.data_ptr(),
        out.data_ptr(),
        tokens,
        heads,
        width,
        x_token,
        x_head,
        heads * width,
        width,
        max_positions,
    )
    return out
