# SPDX-License-Identifier: MIT
"""DeepSeek-V3's mixture of experts, all tokens at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ts_kernels.torch.norm import silu_and_mul


def moe_route(
    logits: Tensor,
    bias: Tensor,
    top_k: int,
    n_group: int,
    topk_group: int,
    norm_topk_prob: bool,
    routed_scaling_factor: float,
) -> tuple[Tensor, Tensor]:
    scores = torch.sigmoid(logits.float())
    for_choice = scores + bias
    if n_group > 1:
        groups = for_choice.view(logits.shape[0], n_group, -1)
        group_score = groups.topk(2, dim=-1).values.sum(dim=-1)
        kept = group_score.sort(dim=-1, descending=True, stable=True).indices[:, :topk_group]
        masked = torch.ones_like(group_score, dtype=torch.bool).scatter_(1, kept, False)
        for_choice = groups.masked_fill(masked[..., None], -torch.inf).flatten(1)
    ids = for_choice.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    weights = scores.gather(1, ids)
    if norm_topk_prob:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return weights * routed_scaling_factor, ids


def moe_experts(
    x: Tensor,
    w_gate_up: Tensor,
    w_down: Tensor,
    weights: Tensor,
    ids: Tensor,
    num_shared: int = 0,
) -> Tensor:
    if num_shared:
        weights, ids = _with_shared(weights, ids, num_shared, w_gate_up.shape[0])
    top_k = ids.shape[1]
    flat = ids.flatten()
    order = flat.argsort(stable=True)
    token = order // top_k
    gathered = x[token]
    hidden = torch.empty_like(gathered)
    start = 0
    for expert, count in enumerate(flat.bincount(minlength=w_gate_up.shape[0]).tolist()):
        if count:
            mine = slice(start, start + count)
            gate_up = F.linear(gathered[mine], w_gate_up[expert])
            hidden[mine] = F.linear(silu_and_mul(gate_up), w_down[expert])
            start += count
    weighted = hidden.float() * weights.flatten()[order, None]
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    return out.index_add_(0, token, weighted).to(x.dtype)


def _with_shared(
    weights: Tensor, ids: Tensor, num_shared: int, experts: int
) -> tuple[Tensor, Tensor]:
    shared = torch.arange(experts - num_shared, experts, device=ids.device)
    ids = torch.cat([ids, shared.expand(ids.shape[0], -1)], dim=1)
    return F.pad(weights, (0, num_shared), value=1.0), ids
