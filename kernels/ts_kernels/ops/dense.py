# SPDX-License-Identifier: MIT
"""Table look-up and matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels.ops import checks
from ts_kernels.ops.dispatch import ops_for


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """Row `ids[t]` of the table for every token.

    ids: [T] int64, each in [0, V). weight: [V, D]. → [T, D] in the weight's dtype.
    """
    checks.dtype("ids", ids, torch.int64)
    checks.shape("ids", ids, None)
    checks.shape("weight", weight, None, None)
    return ops_for(weight).embedding(ids, weight)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, out_dtype: torch.dtype | None = None
) -> Tensor:
    """x @ weight.T + bias, summed in fp32.

    x: [T, K], rows may be strided. weight: [N, K] and bias: [N], in x's dtype. → [T, N] in
    `out_dtype`, or in x's dtype. With `out_dtype=torch.float32` the result is the fp32 sum itself,
    not a rounded bf16 (router logits, the head). ValueError: a width or a dtype differs.
    """
    checks.shape("x", x, None, None)
    checks.shape("weight", weight, None, x.shape[1])
    checks.dtype("weight", weight, x.dtype)
    if bias is not None:
        checks.shape("bias", bias, weight.shape[0])
        checks.dtype("bias", bias, x.dtype)
    return ops_for(x).linear(x, weight, bias, out_dtype)


def head_linear(x: Tensor, weight: Tensor) -> Tensor:
    """One matrix per head: out[t, h] = weight[h] @ x[t, h], summed in fp32.

    Absorbs W_uk into the queries and applies W_uv to the attention's output (DeepSeek-V2,
    section 2.1.2). x: [T, H, K]. weight: [H, N, K] in x's dtype. Both may be strided views, the
    weight also a transposed one. → [T, H, N]. ValueError: a size or a dtype differs.
    """
    checks.shape("x", x, None, None, None)
    checks.shape("weight", weight, x.shape[1], None, x.shape[2])
    checks.dtype("weight", weight, x.dtype)
    return ops_for(x).head_linear(x, weight)
