# SPDX-License-Identifier: MIT
"""Table look-up and matrix products, in fp32."""

from __future__ import annotations

import torch
from torch import Tensor


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    return weight[ids]


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, out_dtype: torch.dtype | None = None
) -> Tensor:
    product = x.float() @ weight.float().T
    if bias is not None:
        product = product + bias.float()
    return product.to(out_dtype or x.dtype)


def head_linear(x: Tensor, weight: Tensor) -> Tensor:
    heads = [x[:, head].float() @ weight[head].float().T for head in range(weight.shape[0])]
    return torch.stack(heads, dim=1).to(x.dtype)
