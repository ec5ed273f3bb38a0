# SPDX-License-Identifier: MIT
"""Table look-up and matrix products.

On a CPU, fp32 products go to oneDNN: PyTorch sends them to MKL, which takes 1.5 to 2.3 times as
long on AMD (benchmarks/bench_torch_backend.py). bf16 products reach oneDNN by themselves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")
_WORTH_A_CALL = 2**21  # multiply-adds from which one matrix of a batch is worth its own call
_CONVERTED_AT_ONCE = 2**20  # elements of a bf16 weight: 4 MB as fp32, which stays in the cache


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    return F.embedding(ids, weight)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, out_dtype: torch.dtype | None = None
) -> Tensor:
    if out_dtype is None or out_dtype == x.dtype:
        return product(x, weight, bias)
    return _converted_product(x, weight, bias, out_dtype)


def head_linear(x: Tensor, weight: Tensor) -> Tensor:
    return batched_product(x.transpose(0, 1), weight).transpose(0, 1)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [M, K] @ weight [N, K].T + bias."""
    if _onednn_is_faster(x, weight):
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out
    return F.linear(x, weight, bias)


def batched_product(x: Tensor, weight: Tensor) -> Tensor:
    """x [B, M, K] @ weight [B, N, K] transposed → [B, M, N]."""
    multiply_adds = x.shape[1] * x.shape[2] * weight.shape[1]
    if multiply_adds < _WORTH_A_CALL or x.device.type != "cpu":
        return torch.bmm(x, weight.transpose(1, 2))
    return torch.stack([product(one, other) for one, other in zip(x, weight, strict=True)])


def _onednn_is_faster(x: Tensor, weight: Tensor) -> bool:
    """fp32 on a CPU, more than a vector, and dense: of strides oneDNN has only reference code."""
    return (
        x.dtype == torch.float32
        and x.shape[0] > 1
        and _HAS_ONEDNN
        and x.device.type == "cpu"
        and x.stride(-1) == 1
        and (weight.is_contiguous() or weight.T.is_contiguous())
    )


def _converted_product(
    x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The product of wider copies, a block of the weight's rows at a time."""
    x = x.to(dtype)
    rows = max(1, _CONVERTED_AT_ONCE // weight.shape[1])
    cuts = tuple(range(rows, weight.shape[0], rows))
    blocks = [product(x, block.to(dtype)) for block in weight.tensor_split(cuts)]
    out = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
    return out if bias is None else out.add_(bias)
