# SPDX-License-Identifier: MIT
"""Routing, and the experts that have tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels import _native

BF16 = torch.bfloat16


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
    experts, _, intermediate = w_down.shape
    # The kernel reads them all through their addresses: each must outlive the call.
    x, weights, ids = x.contiguous(), weights.contiguous(), ids.contiguous()
    w_gate_up, w_down = w_gate_up.contiguous(), w_down.contiguous()
    out = x.new_empty(tokens, hidden)
    _native.moe_experts(
        x.dtype is BF16,
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
