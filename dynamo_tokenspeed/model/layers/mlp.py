# SPDX-License-Identifier: MIT
"""A dense SwiGLU MLP."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from ts_kernels.signatures import Linear, SiluAndMul

from dynamo_tokenspeed.model.parameters import Parameters
from dynamo_tokenspeed.model.weight import Placement


class MlpOps(Protocol):
    @property
    def linear(self) -> Linear: ...
    @property
    def silu_and_mul(self) -> SiluAndMul: ...


class Mlp:
    """down(silu(gate x) * up x), gate and up in one matrix; sharded over the columns between."""

    def __init__(self, hidden: int, intermediate: int, new: Parameters, ops: MlpOps) -> None:
        self.ops = ops
        gate_up = new(
            (2, intermediate, hidden),
            Placement("gate_proj.weight", 0, shard=0),
            Placement("up_proj.weight", 1, shard=0),
        )
        self.w_gate_up = gate_up.data.flatten(0, 1)
        self.w_down = new((hidden, intermediate), Placement("down_proj.weight", shard=1)).data

    def forward(self, x: Tensor) -> Tensor:
        ops = self.ops
        return ops.linear(ops.silu_and_mul(ops.linear(x, self.w_gate_up)), self.w_down)
