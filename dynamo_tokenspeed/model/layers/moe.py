# SPDX-License-Identifier: MIT
"""Sigmoid-routed experts beside shared ones (DeepSeek-V3, arXiv:2412.19437, section 2.1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from ts_kernels.registry import Traits
from ts_kernels.signatures import Linear, MoeExperts, MoeRoute

from dynamo_tokenspeed.model.parameters import Parameters
from dynamo_tokenspeed.model.weight import Placement


class MoeOps(Protocol):
    @property
    def linear(self) -> Linear: ...
    @property
    def moe_route(self) -> MoeRoute: ...
    @property
    def moe_experts(self) -> MoeExperts: ...


@dataclass(frozen=True)
class MoeConfig:
    num_experts: int
    num_shared: int
    intermediate_size: int  # of one expert; shared experts have the same width each
    top_k: int
    num_groups: int
    topk_groups: int
    norm_topk_prob: bool
    routed_scaling_factor: float

    @property
    def traits(self) -> Traits:
        return {
            "num_experts": self.num_experts,
            "num_shared_experts": self.num_shared,
            "moe_intermediate_size": self.intermediate_size,
            "top_k": self.top_k,
        }


class Moe:
    """Routed and shared experts in one stack, the shared ones last; sharded over the columns
    between gate and down, the router Replicate.

    S shared experts are one MLP of S times the width in the checkpoint. SwiGLU works column by
    column and `down` sums over columns, so it is the sum of S experts of the common width.
    """

    def __init__(self, hidden: int, moe: MoeConfig, new: Parameters, ops: MoeOps) -> None:
        self.ops = ops
        self.moe = moe
        routed, inner = moe.num_experts, moe.intermediate_size
        stack, shared, wide = routed + moe.num_shared, slice(routed, None), moe.num_shared * inner
        self.w_router = new((routed, hidden), Placement("gate.weight")).data
        # Added to the scores for the choice only; kept in fp32, as checkpoints do.
        bias = new((routed,), Placement("gate.e_score_correction_bias"), dtype=torch.float32)
        self.router_bias = bias.data

        halves = ("gate_proj.weight", "up_proj.weight")
        # All experts in one tensor, as `transformers` 5 keeps them, or one by one.
        if "experts.gate_up_proj" in new:
            fused = (routed, 2 * inner, hidden)
            gate_up = [Placement("experts.gate_up_proj", slice(routed), shard=2, shape=fused)]
            down = [Placement("experts.down_proj", slice(routed), shard=2)]
        else:
            gate_up = [
                Placement(f"experts.{i}.{name}", (i, half), shard=0)
                for i in range(routed)
                for half, name in enumerate(halves)
            ]
            down = [Placement(f"experts.{i}.down_proj.weight", i, shard=1) for i in range(routed)]
        if moe.num_shared:
            gate_up += [
                Placement(f"shared_experts.{name}", (shared, half), shard=1, shape=(wide, hidden))
                for half, name in enumerate(halves)
            ]
            name, merged = "shared_experts.down_proj.weight", (hidden, wide)
            down.append(Placement(name, shared, shard=2, axes=(1, 0, 2), shape=merged))
        self.w_gate_up = new((stack, 2, inner, hidden), *gate_up).data.flatten(1, 2)
        self.w_down = new((stack, hidden, inner), *down).data

    def forward(self, x: Tensor) -> Tensor:
        ops, moe = self.ops, self.moe
        logits = ops.linear(x, self.w_router, out_dtype=torch.float32)
        weights, ids = ops.moe_route(
            logits,
            self.router_bias,
            moe.top_k,
            moe.num_groups,
            moe.topk_groups,
            moe.norm_topk_prob,
            moe.routed_scaling_factor,
        )
        return ops.moe_experts(
            x, self.w_gate_up, self.w_down, weights, ids, num_shared=moe.num_shared
        )
