# SPDX-License-Identifier: MIT
"""Rotary position embedding of interleaved pairs, in fp32."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_interleaved(x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    cos = cos_sin[positions, :half].unsqueeze(1)
    sin = cos_sin[positions, half:].unsqueeze(1)
    first, second = x[..., 0::2].float(), x[..., 1::2].float()
    out = torch.empty_like(x)
    out[..., 0::2] = (first * cos - second * sin).to(x.dtype)
    out[..., 1::2] = (first * sin + second * cos).to(x.dtype)
    return out
