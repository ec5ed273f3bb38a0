# SPDX-License-Identifier: MIT
"""The ops by name, and the type of each: what `bind` hands out and what a backend implements.

Shapes, dtypes and formulas: the docstrings of the public functions in `ts_kernels.ops`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from ts_kernels.registry import Selection
from ts_kernels.sampling_rows import SamplingRows
from ts_kernels.step_arena import StepInputs


class Embedding(Protocol):
    def __call__(self, ids: Tensor, weight: Tensor) -> Tensor: ...


class Linear(Protocol):
    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
    ) -> Tensor: ...


class HeadLinear(Protocol):
    def __call__(self, x: Tensor, weight: Tensor) -> Tensor: ...


class RmsNorm(Protocol):
    def __call__(self, x: Tensor, weight: Tensor, eps: float) -> Tensor: ...


class AddRmsNorm(Protocol):
    def __call__(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]: ...


class SiluAndMul(Protocol):
    def __call__(self, gate_up: Tensor) -> Tensor: ...


class RopeInterleaved(Protocol):
    def __call__(self, x: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor: ...


class MlaCacheWrite(Protocol):
    def __call__(
        self,
        kv: Tensor,
        latent: Tensor,
        rope_key: Tensor,
        norm_weight: Tensor,
        cos_sin: Tensor,
        positions: Tensor,
        cache_index: Tensor,
        eps: float,
    ) -> None: ...


class MlaDecode(Protocol):
    def __call__(
        self,
        q: Tensor,
        kv: Tensor,
        block_table: Tensor,
        slots: Tensor,
        context_lens: Tensor,
        scale: float,
        kv_lora_rank: int = 512,
    ) -> Tensor: ...


class MlaPrefill(Protocol):
    def __call__(
        self,
        q: Tensor,
        kv: Tensor,
        block_table: Tensor,
        slots: Tensor,
        query_start: Tensor,
        context_lens: Tensor,
        w_kv_b: Tensor,
        scale: float,
    ) -> Tensor: ...


class MoeRoute(Protocol):
    def __call__(
        self,
        logits: Tensor,
        bias: Tensor,
        top_k: int,
        n_group: int,
        topk_group: int,
        norm_topk_prob: bool,
        routed_scaling_factor: float,
    ) -> tuple[Tensor, Tensor]: ...


class MoeExperts(Protocol):
    def __call__(
        self,
        x: Tensor,
        w_gate_up: Tensor,
        w_down: Tensor,
        weights: Tensor,
        ids: Tensor,
        num_shared: int = 0,
    ) -> Tensor: ...


class Sample(Protocol):
    def __call__(self, logits: Tensor, rows: SamplingRows) -> Tensor: ...


class TokenLogprobs(Protocol):
    def __call__(self, logits: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]: ...


class PrepareStep(Protocol):
    def __call__(
        self,
        arena: Tensor,
        tokens: Tensor,
        pages: Tensor,
        page_size: int,
        num_pages: int,
        inputs: StepInputs,
    ) -> None: ...


class AppendTokens(Protocol):
    def __call__(self, tokens: Tensor, slots: Tensor, positions: Tensor, ids: Tensor) -> None: ...


@dataclass(frozen=True, slots=True)
class Ops:
    """One implementation per op, chosen once by `bind`. Calling one costs no look-up."""

    embedding: Embedding
    linear: Linear
    head_linear: HeadLinear
    rms_norm: RmsNorm
    add_rms_norm: AddRmsNorm
    silu_and_mul: SiluAndMul
    rope_interleaved: RopeInterleaved
    mla_cache_write: MlaCacheWrite
    mla_decode: MlaDecode
    mla_prefill: MlaPrefill
    moe_route: MoeRoute
    moe_experts: MoeExperts
    sample: Sample
    token_logprobs: TokenLogprobs
    prepare_step: PrepareStep
    append_tokens: AppendTokens
    selections: Mapping[str, Selection]  # by op: what was chosen, and why

    def __str__(self) -> str:
        return "\n".join(map(str, self.selections.values()))


OP_NAMES: tuple[str, ...] = tuple(f.name for f in fields(Ops) if f.name != "selections")

OP_GROUPS: Mapping[str, tuple[str, ...]] = {
    "attention": tuple(name for name in OP_NAMES if name.startswith("mla_")),
    "moe": tuple(name for name in OP_NAMES if name.startswith("moe_")),
}
"""What `--attention-backend` and `--moe-backend` override at once."""
