# SPDX-License-Identifier: MIT
"""Allocating a model's parameters and counting their bytes."""

from __future__ import annotations

import torch
from torch import Tensor


class Parameters:
    """`new(2, 3)` allocates an uninitialized `[2, 3]` on the model's device in its dtype."""

    def __init__(self, device: torch.device | str, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self.nbytes = 0

    def __call__(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype or self.dtype, device=self.device)
        self.nbytes += tensor.nbytes
        return tensor

    def zeros(self, *shape: int) -> Tensor:
        return self(*shape).zero_()
