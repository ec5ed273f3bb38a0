# SPDX-License-Identifier: MIT
"""Multi-head latent attention over a paged latent cache (DeepSeek-V2, arXiv:2405.04434, section
2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from ts_kernels.registry import Traits
from ts_kernels.signatures import (
    HeadLinear,
    Linear,
    MlaCacheWrite,
    MlaDecode,
    MlaPrefill,
    RmsNorm,
    RopeInterleaved,
)

from dynamo_tokenspeed.model.forward_batch import ForwardBatch
from dynamo_tokenspeed.model.layers.rope import Rope
from dynamo_tokenspeed.model.parameters import Parameters
from dynamo_tokenspeed.model.weight import Placement

# The norms inside attention ignore `rms_norm_eps`, in DeepSeek's own code and in `transformers`.
LATENT_NORM_EPS = 1e-6


class MlaOps(Protocol):
    @property
    def linear(self) -> Linear: ...
    @property
    def head_linear(self) -> HeadLinear: ...
    @property
    def rms_norm(self) -> RmsNorm: ...
    @property
    def rope_interleaved(self) -> RopeInterleaved: ...
    @property
    def mla_cache_write(self) -> MlaCacheWrite: ...
    @property
    def mla_decode(self) -> MlaDecode: ...
    @property
    def mla_prefill(self) -> MlaPrefill: ...


@dataclass(frozen=True)
class MlaConfig:
    hidden_size: int
    num_heads: int
    q_lora_rank: int | None  # None: queries are not compressed
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    bias: bool
    rope: Rope
    rope_interleave: bool  # pairs (2i, 2i+1) in the checkpoint; otherwise (i, i + dim/2)

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def cache_width(self) -> int:
        """Elements per token and layer: the latent, then the rope key (section 2.1.3)."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def softmax_scale(self) -> float:
        """1/sqrt(head dim), times YaRN's temperature squared."""
        scale: float = self.qk_head_dim**-0.5
        return scale * self.rope.softmax_scale

    @property
    def traits(self) -> Traits:
        return {
            "num_heads": self.num_heads,
            "kv_lora_rank": self.kv_lora_rank,
            "qk_nope_head_dim": self.qk_nope_head_dim,
            "qk_rope_head_dim": self.qk_rope_head_dim,
            "v_head_dim": self.v_head_dim,
        }


class MlaAttention:
    """The cache keeps one latent and one rope key per token; `w_kv_b` expands the latent to keys
    and values per head. The absorbed form never expands: `w_uk` is absorbed into the query and
    `w_uv` into the output (section 2.1.2), both views of `w_kv_b`. Which form a token attends in is
    not decided here: the two round differently.

    Sharded over heads: queries, `w_kv_b`, `w_o`; the latent is Replicate.
    """

    def __init__(self, config: MlaConfig, new: Parameters, ops: MlaOps, cos_sin: Tensor) -> None:
        self.ops = ops
        self.cos_sin = cos_sin
        self.scale = config.softmax_scale
        self.rank = rank = config.kv_lora_rank
        self.nope = nope = config.qk_nope_head_dim
        self.qk = config.qk_head_dim
        self.heads = heads = config.num_heads
        hidden, value, lora = config.hidden_size, config.v_head_dim, config.q_lora_rank
        q_rows, kv_rows = heads * self.qk, config.cache_width
        q_order = kv_order = None
        if not config.rope_interleave:
            q_order = config.rope.interleaved_rows(heads, self.qk)
            kv_order = config.rope.interleaved_rows(1, kv_rows)

        # One matrix from the hidden state down: query (compressed, or all heads), latent, rope key.
        self.q_width = lora or q_rows
        down_width = self.q_width + kv_rows
        q, kv = slice(self.q_width), slice(self.q_width, None)
        self.w_down = new(
            (down_width, hidden),
            Placement("q_a_proj.weight", q)
            if lora
            else Placement("q_proj.weight", q, shard=0, order=q_order),
            Placement("kv_a_proj_with_mqa.weight", kv, order=kv_order),
        ).data
        self.b_down = self.b_o = None
        if config.bias:
            # Only the compressing projections have a bias; that of `q_proj` stays zero.
            q_bias = [Placement("q_a_proj.bias", q)] if lora else []
            kv_bias = Placement("kv_a_proj_with_mqa.bias", kv, order=kv_order)
            self.b_down = new((down_width,), *q_bias, kv_bias).data.zero_()
            self.b_o = new((hidden,), Placement("o_proj.bias", partial=True)).data
        # Norm and matrix that turn the compressed query into heads.
        self.q_up = (
            (
                new((lora,), Placement("q_a_layernorm.weight")).data,
                new((q_rows, lora), Placement("q_b_proj.weight", shard=0, order=q_order)).data,
            )
            if lora
            else None
        )
        self.kv_norm = new((rank,), Placement("kv_a_layernorm.weight")).data
        w_kv_b = new((heads * (nope + value), rank), Placement("kv_b_proj.weight", shard=0)).data
        self.w_kv_b = w_kv_b.view(heads, nope + value, rank)
        self.w_uk = self.w_kv_b[:, :nope].transpose(1, 2)  # [H, rank, nope]
        self.w_uv = self.w_kv_b[:, nope:]  # [H, v, rank]
        self.w_o = new((hidden, heads * value), Placement("o_proj.weight", shard=1)).data

    def write_cache(self, x: Tensor, batch: ForwardBatch, kv: Tensor) -> Tensor:
        """Cache the latent and rope key of tokens x `[T, D]`; their queries, compressed."""
        ops = self.ops
        down = ops.linear(x, self.w_down, self.b_down)
        q, latent, key = down.tensor_split((self.q_width, self.q_width + self.rank), dim=1)
        ops.mla_cache_write(
            kv,
            latent,
            key,
            self.kv_norm,
            self.cos_sin,
            batch.positions,
            batch.cache_index,
            LATENT_NORM_EPS,
        )
        return q

    def attend(self, q: Tensor, batch: ForwardBatch, kv: Tensor) -> Tensor:
        """Compressed queries of `write_cache` → [T, D], reading the cached context."""
        ops = self.ops
        if self.q_up is not None:
            q_norm, w_q = self.q_up
            q = ops.linear(ops.rms_norm(q, q_norm, LATENT_NORM_EPS), w_q)
        q_nope, q_rope = q.view(-1, self.heads, self.qk).tensor_split((self.nope,), dim=2)
        q_rope = ops.rope_interleaved(q_rope, batch.positions, self.cos_sin)
        n = len(batch.absorbed_context_lens)
        if n == len(q):
            out = self._absorbed(q_nope, q_rope, batch, kv)
        elif not n:
            out = self._expanded(q_nope, q_rope, batch, kv)
        else:
            absorbed = self._absorbed(q_nope[:n], q_rope[:n], batch, kv)
            out = torch.cat([absorbed, self._expanded(q_nope[n:], q_rope[n:], batch, kv)])
        return ops.linear(out, self.w_o, self.b_o)

    def _absorbed(self, q_nope: Tensor, q_rope: Tensor, batch: ForwardBatch, kv: Tensor) -> Tensor:
        ops = self.ops
        q = torch.cat([ops.head_linear(q_nope, self.w_uk), q_rope], dim=2)
        latent = ops.mla_decode(
            q.unsqueeze(1),
            kv,
            batch.block_table,
            batch.token_slots[: len(q)],
            batch.absorbed_context_lens,
            self.scale,
            self.rank,
        )
        return ops.head_linear(latent.squeeze(1), self.w_uv).flatten(1)

    def _expanded(self, q_nope: Tensor, q_rope: Tensor, batch: ForwardBatch, kv: Tensor) -> Tensor:
        out = self.ops.mla_prefill(
            torch.cat([q_nope, q_rope], dim=2),
            kv,
            batch.block_table,
            batch.expanded_slots,
            batch.query_start,
            batch.context_lens,
            self.w_kv_b,
            self.scale,
        )
        return out.flatten(1)
