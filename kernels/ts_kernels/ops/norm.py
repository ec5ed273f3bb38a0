# SPDX-License-Identifier: MIT
"""RMS norms and the gated activation."""

from __future__ import annotations

from torch import Tensor

from ts_kernels.ops import checks
from ts_kernels.ops.dispatch import ops_for


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) * weight, computed in fp32 (Zhang and Sennrich, 2019).

    x: [T, D], rows may be strided. weight: [D] in x's dtype. → [T, D] in x's dtype.
    """
    _check_rms_norm(x, None, weight)
    return ops_for(x).rms_norm(x, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Adds the residual stream, then norms: (rms_norm(x + residual), x + residual).

    x, residual: [T, D]. weight: [D]. All of one dtype, the sum is rounded to it before the norm.
    Neither argument is written.
    """
    _check_rms_norm(x, residual, weight)
    return ops_for(x).add_rms_norm(x, residual, weight, eps)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up with silu(z) = z / (1 + exp(-z)) (SwiGLU; Shazeer, 2020).

    gate_up: [T, 2I], the gate in columns 0…I-1. → [T, I] in its dtype.
    """
    checks.shape("gate_up", gate_up, None, None)
    if gate_up.shape[1] % 2:
        raise ValueError(f"gate_up has {gate_up.shape[1]} columns, but must have an even number")
    return ops_for(gate_up).silu_and_mul(gate_up)


def _check_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor) -> None:
    checks.shape("x", x, None, None)
    if residual is not None:
        checks.shape("residual", residual, *x.shape)
    checks.shape("weight", weight, x.shape[1])
    if residual is not None:
        checks.dtype("residual", residual, x.dtype)
    checks.dtype("weight", weight, x.dtype)
