# SPDX-License-Identifier: MIT
"""RMS norms and the gated activation, one pass each."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels import _native

BF16 = torch.bfloat16


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    tokens, width = x.shape
    weight = weight.contiguous()
    x_token, step = x.stride()
    if step != 1:
        x = x.contiguous()
        x_token = width
    out = x.new_empty(tokens, width)
    _native.rms_norm(
        x.dtype is BF16,
        x.data_ptr(),
        0,
        weight.data_ptr(),
        out.data_ptr(),
        0,
        tokens,
        width,
        x_token,
        0,
        eps,
    )
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    tokens, width = x.shape
    weight = weight.contiguous()
    x_token, x_step = x.stride()
    if x_step != 1:
        x = x.contiguous()
        x_token = width
    residual_token, residual_step = residual.stride()
    if residual_step != 1:
        residual = residual.contiguous()
        residual_token = width
    out = x.new_empty(tokens, width)
    total = x.new_empty(tokens, width)
    _native.rms_norm(
        x.dtype is BF16,
        x.data_ptr(),
        residual.data_ptr(),
        weight.data_ptr(),
        out.data_ptr(),
        total.data_ptr(),
        tokens,
        width,
        x_token,
        residual_token,
        eps,
    )
    return out, total


def silu_and_mul(gate_up: Tensor) -> Tensor:
    tokens, double = gate_up.shape
    token, step = gate_up.stride()
    if step != 1:
        gate_up = gate_up.contiguous()
        token = double
    out = gate_up.new_empty(tokens, double // 2)
    _native.silu_and_mul(
        gate_up.dtype is BF16,
        gate_up.data_ptr(),
        out.data_ptr(),
        tokens,
        double // 2,
        token,
    )
    return out
