# SPDX-License-Identifier: MIT
"""Routing, and the experts that have tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels import _native
from ts_kernels.native.dtypes import BF16, DTYPES
from ts_kernels.ops import checks
from ts_kernels.ops.moe import check_moe_experts, check_moe_route


def moe_route(
    logits: Tensor,
    bias: Tensor,
    top_k: int,
    n_group: int,
    topk_group: int,
    norm_topk_prob: bool,
    routed_scaling_factor: float,
) -> tuple[Tensor, Tensor]:
    tokens, experts = logits.shape
    if (
        logits.dtype is not torch.float32
        or bias.dtype is not torch.float32
        or bias.shape != (experts,)
        or experts % n_group
        or (n_group > 1 and experts < 2 * n_group)
        or not 0 < topk_group <= n_group
        or not 0 < top_k <= experts // n_group * topk_group
    ):
        check_moe_route(logits, bias, top_k, n_group, topk_group)
    logits, bias = logits.contiguous(), bias.contiguous()
    weights = torch.empty((tokens, top_k), dtype=torch.float32)
    ids = torch.empty((tokens, top_k), dtype=torch.int64)
    _native.moe_route(
        logits.data_ptr(),
        bias.data_ptr(),
        weights.data_ptr(),
        ids.data_ptr(),
        tokens,
        experts,
        top_k,
        n_group,
        topk_group,
        norm_topk_prob,
        routed_scaling_factor,
    )
    return weights, ids


def moe_experts(
    x: Tensor,
    w_gate_up: Tensor,
    w_down: Tensor,
    weights: Tensor,
    ids: Tensor,
    num_shared: int = 0,
) -> Tensor:
    tokens, hidden = x.shape
    experts, width, intermediate = w_down.shape
    dtype = x.dtype
    if (
        w_gate_up.shape != (experts, 2 * intermediate, hidden)
        or width != hidden
        or not w_gate_up.dtype is w_down.dtype is dtype
        or dtype not in DTYPES
        or weights.dtype is not torch.float32
        or ids.dtype is not torch.int64
        or ids.shape[0] != tokens
        or weights.shape != ids.shape
    ):
        checks.dtype("x", x, *DTYPES)
        check_moe_experts(x, w_gate_up, w_down, weights, ids)
    if not 0 <= num_shared <= experts:
        raise ValueError(f"num_shared is {num_shared}, but the stack has {experts} experts")
    # The kernel reads them all through their addresses: each must outlive the call.
    x, weights, ids = x.contiguous(), weights.contiguous(), ids.contiguous()
    w_gate_up, w_down = w_gate_up.contiguous(), w_down.contiguous()
    out = x.new_empty(tokens, hidden)
    _native.moe_experts(
        dtype is BF16,
        x.data_ptr(),
        w_gate_up.data_ptr(),
        w_down.data_ptr(),
        weights.data_ptr(),
        ids.data_ptr(),
        out.data_ptr(),
        tokens,
        ids.shape[1],
        experts,
        num_shared,
        hidden,
        intermediate,
    )
    return out
