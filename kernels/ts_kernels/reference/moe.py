# SPDX-License-Identifier: MIT
"""DeepSeek-V3's mixture of experts, one token at a time, in fp32."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels.reference.norm import silu_and_mul


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
    group_size = experts // n_group
    weights = torch.empty(tokens, top_k)
    ids = torch.empty(tokens, top_k, dtype=torch.int64)
    for token in range(tokens):
        scores = torch.sigmoid(logits[token].float())
        for_choice = scores + bias.float()
        if n_group > 1:
            groups = for_choice.view(n_group, group_size)
            group_score = groups.sort(dim=1, descending=True).values[:, :2].sum(dim=1)
            kept = group_score.sort(descending=True, stable=True).indices[:topk_group]
            masked = torch.full_like(groups, -torch.inf)
            masked[kept] = groups[kept]
            for_choice = masked.flatten()
        chosen = for_choice.sort(descending=True, stable=True).indices[:top_k]
        weight = scores[chosen]
        if norm_topk_prob:
            weight = weight / (weight.sum() + 1e-20)
        weights[token] = weight * routed_scaling_factor
        ids[token] = chosen
    return weights.to(logits.device), ids.to(logits.device)


def moe_experts(
    x: Tensor,
    w_gate_up: Tensor,
    w_down: Tensor,
    weights: Tensor,
    ids: Tensor,
    num_shared: int = 0,
) -> Tensor:
    experts = w_gate_up.shape[0]
    shared = [(1.0, expert) for expert in range(experts - num_shared, experts)]
    out = torch.zeros_like(x, dtype=torch.float32)
    for token in range(x.shape[0]):
        routed = zip(weights[token].tolist(), ids[token].tolist(), strict=True)
        for weight, expert in [*routed, *shared]:
            hidden = silu_and_mul(w_gate_up[expert].float() @ x[token].float())
            out[token] += weight * (w_down[expert].float() @ hidden)
    return out.to(x.dtype)
