# SPDX-License-Identifier: MIT
"""DeepSeek-V3's mixture of experts, all tokens at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ts_kernels.torch.dense import product
from ts_kernels.torch.norm import silu_and_mul

_ROUNDING = 16


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
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    first_shared = w_gate_up.shape[0] - num_shared
    for expert in range(first_shared, w_gate_up.shape[0]):
        out += _expert(x, w_gate_up[expert], w_down[expert])
    _add_routed(out, x, w_gate_up, w_down, weights, ids)
    return out.to(x.dtype)


def _add_routed(
    out: Tensor, x: Tensor, w_gate_up: Tensor, w_down: Tensor, weights: Tensor, ids: Tensor
) -> None:
    """Sorts the (token, expert) pairs by expert and runs each active expert on its rows.

    One padded product for all experts takes up to 4.6 times as long; `torch._grouped_mm` takes 0.7
    to 0.9 of the time at 8 to 32 tokens and up to 1.3 times elsewhere
    (benchmarks/bench_torch_backend.py).
    """
    flat = ids.flatten()
    order = flat.argsort(stable=True)
    token = order // ids.shape[1]
    gathered = F.pad(x[token], (0, 0, 0, _ROUNDING))
    results = []
    start = 0
    for expert, count in enumerate(flat.bincount(minlength=1).tolist()):
        if count:
            computed = gathered[start : start + _rounded(count)]
            results.append(_expert(computed, w_gate_up[expert], w_down[expert])[:count])
            start += count
    weighted = torch.cat(results) * weights.flatten()[order, None]
    out.index_add_(0, token, weighted)


def _rounded(count: int) -> int:
    """The rows computed for so many: oneDNN compiles for every new size, about 1 ms each.

    The rows beyond `count` are the next expert's or padding, and their results are dropped.
    """
    return count if count <= _ROUNDING else -(-count // _ROUNDING) * _ROUNDING


def _expert(x: Tensor, w_gate_up: Tensor, w_down: Tensor) -> Tensor:
    return product(silu_and_mul(product(x, w_gate_up)), w_down)
