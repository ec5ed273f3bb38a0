# SPDX-License-Identifier: MIT
"""DeepSeek-V3's mixture of experts (DeepSeek-V3 technical report, section 2.1.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels.ops import checks
from ts_kernels.ops.dispatch import ops_for


def moe_route(
    logits: Tensor,
    bias: Tensor,
    top_k: int,
    n_group: int,
    topk_group: int,
    norm_topk_prob: bool,
    routed_scaling_factor: float,
) -> tuple[Tensor, Tensor]:
    """Group-limited sigmoid routing with a correction bias, as `DeepseekV3TopkRouter` does it.

    scores = sigmoid(logits); experts are chosen by scores + bias: the `topk_group` groups with the
    largest sum of their two best, then the `top_k` best experts in them (of equals the lower id).
    Their weights are the scores without the bias, divided by their sum + 1e-20 when
    `norm_topk_prob`, times `routed_scaling_factor`.

    logits: [T, E] fp32. bias: [E] fp32. → (weights [T, top_k] fp32, ids [T, top_k] int64), most
    wanted expert first. ValueError: E is not a multiple of n_group, a group has fewer than two
    experts, or fewer than top_k experts remain.
    """
    checks.shape("logits", logits, None, None)
    checks.shape("bias", bias, logits.shape[1])
    checks.dtype("logits", logits, torch.float32)
    checks.dtype("bias", bias, torch.float32)
    experts = logits.shape[1]
    if experts % n_group or (n_group > 1 and experts < 2 * n_group):
        raise ValueError(f"{experts} experts do not divide into {n_group} groups of two or more")
    if not (0 < topk_group <= n_group and 0 < top_k <= experts // n_group * topk_group):
        raise ValueError(
            f"cannot choose {top_k} experts from {topk_group} of {n_group} groups of "
            f"{experts // n_group}"
        )
    return ops_for(logits).moe_route(
        logits, bias, top_k, n_group, topk_group, norm_topk_prob, routed_scaling_factor
    )


def moe_experts(
    x: Tensor,
    w_gate_up: Tensor,
    w_down: Tensor,
    weights: Tensor,
    ids: Tensor,
    num_shared: int = 0,
) -> Tensor:
    """Σ weight · w_down[e] @ silu_and_mul(w_gate_up[e] @ x) over each token's experts e.

    x: [T, D]. w_gate_up: [E+S, 2I, D], gate rows first. w_down: [E+S, D, I]. All of one dtype.
    weights: [T, k] fp32. ids: [T, k] int64, each in [0, E), no two alike in a row. The last
    S = num_shared experts of the stack are shared: every token passes through them with weight 1.
    → [T, D] in x's dtype. ValueError: a size or a dtype differs.
    """
    checks.shape("x", x, None, None)
    checks.shape("w_gate_up", w_gate_up, None, None, x.shape[1])
    checks.shape("w_down", w_down, w_gate_up.shape[0], x.shape[1], w_gate_up.shape[1] // 2)
    checks.shape("ids", ids, x.shape[0], None)
    checks.shape("weights", weights, *ids.shape)
    checks.dtype("w_gate_up", w_gate_up, x.dtype)
    checks.dtype("w_down", w_down, x.dtype)
    checks.dtype("weights", weights, torch.float32)
    checks.dtype("ids", ids, torch.int64)
    if not 0 <= num_shared <= w_down.shape[0]:
        raise ValueError(f"num_shared is {num_shared}, but the stack has {len(w_down)} experts")
    return ops_for(x).moe_experts(x, w_gate_up, w_down, weights, ids, num_shared)
