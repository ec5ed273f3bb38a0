# SPDX-License-Identifier: MIT
"""Rotary position embedding of interleaved pairs, as a product of complex numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_interleaved(x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
    rows = cos_sin[positions].unsqueeze(1)
    half = x.shape[-1] // 2
    turn = torch.complex(rows[..., :half], rows[..., half:])
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], half, 2))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)
