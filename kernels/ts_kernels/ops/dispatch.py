# SPDX-License-Identifier: MIT
"""From a public function's first tensor to the bound ops that serve it."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ts_kernels.selection import bind
from ts_kernels.signatures import Ops


def ops_for(x: Tensor) -> Ops:
    """The default choice for this tensor's device and dtype."""
    return _bound(str(x.device), x.dtype)


def ops_beside(table: Tensor) -> Ops:
    """The default choice on this tensor's device for ops that compute with integers only."""
    return _bound(str(table.device), torch.float32)


@cache
def _bound(device: str, dtype: torch.dtype) -> Ops:
    return bind(device, dtype)
