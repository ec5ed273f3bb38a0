# SPDX-License-Identifier: MIT
"""Rotary position embedding of interleaved pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels import _native

BF16 = torch.bfloat16


def rope_interleaved(x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
    tokens, heads, width = x.shape
    x_token, x_head, step = x.stride()
    if step != 1:
        x = x.contiguous()
        x_token, x_head, _ = x.stride()
    positions, cos_sin = positions.contiguous(), cos_sin.contiguous()
    out = x.new_empty(tokens, heads, width)
    _native.rope_interleaved(
        x.dtype is BF16,
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
        cos_sin.shape[0],
    )
    return out
