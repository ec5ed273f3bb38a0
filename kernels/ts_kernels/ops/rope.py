# SPDX-License-Identifier: MIT
"""Rotary position embedding."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels.ops import checks
from ts_kernels.ops.dispatch import ops_for


def rope_interleaved(x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
    """Rotates the pairs (2i, 2i+1), the order of DeepSeek's checkpoints (Su et al., 2021, eq. 34).

    (a, b) → (a cos - b sin, a sin + b cos), in fp32; each pair stays where it is. (transformers
    moves the first components to the front half: the same dot products, another order.)

    x: [T, h, d], d even, rows and heads may be strided. positions: [T] int64, each below max_pos.
    cos_sin: [max_pos, d] fp32, the cosines of pair i in column i, its sine in column d/2 + i.
    → [T, h, d] in x's dtype.
    """
    checks.shape("x", x, None, None, None)
    checks.shape("positions", positions, x.shape[0])
    checks.dtype("positions", positions, torch.int64)
    checks.shape("cos_sin", cos_sin, None, x.shape[2])
    checks.dtype("cos_sin", cos_sin, torch.float32)
    return ops_for(x).rope_interleaved(x, positions, cos_sin)
