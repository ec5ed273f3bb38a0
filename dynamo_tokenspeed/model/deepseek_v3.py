# SPDX-License-Identifier: MIT
"""DeepSeek-V3, and with it Kimi K2: multi-head latent attention over a paged latent cache, and
mixture-of-experts layers.

Sources: attention is section 2.1 of DeepSeek-V2 (arXiv:2405.04434), routing section 2.1.2 of
DeepSeek-V3 (arXiv:2412.19437).

Modules work on flattened tokens `[T, ...]` and on the shard that they hold: sizes are read from
their own parameters. Placements on the mesh axes: hidden states enter every module as Replicate.
Attention is sharded over heads (query, `w_kv_b`, `w_o`; the latent is Replicate), an MLP over its
intermediate columns, and the experts over either; all leave as Partial.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from ts_kernels import Ops

from dynamo_tokenspeed.model.causal_lm import CausalLM
from dynamo_tokenspeed.model.checkpoint_headers import TensorInfo
from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.deepseek_v3_checkpoint import (
    CheckpointNames,
    add_saved_frequencies,
    keep_head,
)
from dynamo_tokenspeed.model.deepseek_v3_config import DeepseekV3Config, MoeConfig
from dynamo_tokenspeed.model.forward_batch import ForwardBatch
from dynamo_tokenspeed.model.kv_pool import KVPool
from dynamo_tokenspeed.model.parameters import Parameters
from dynamo_tokenspeed.model.weights import WeightTargets

# The norms inside attention ignore `rms_norm_eps`, in DeepSeek's own code and in `transformers`.
LATENT_NORM_EPS = 1e-6


@dataclass(slots=True)
class Step:
    """What all layers share in one step: where its tokens are, and how each attends.

    The first tokens attend in the absorbed form, each for itself; `absorbed_context_lens` has one
    entry for each. The rest attends in the expanded form, row by row.
    """

    positions: Tensor
    cache_index: Tensor
    block_table: Tensor
    token_slots: Tensor
    absorbed_context_lens: Tensor
    expanded_slots: Tensor
    query_start: Tensor
    context_lens: Tensor

    @classmethod
    def of(cls, batch: ForwardBatch) -> Step:
        return cls(
            positions=batch.positions,
            cache_index=batch.cache_index,
            block_table=batch.block_table,
            token_slots=batch.token_slots,
            absorbed_context_lens=batch.absorbed_context_lens,
            expanded_slots=batch.expanded_slots,
            query_start=batch.query_start,
            context_lens=batch.context_lens,
        )

    @classmethod
    def of_sampled(cls, batch: ForwardBatch) -> Step:
        """The sampled tokens alone, all of them absorbed: what is left to compute once the last
        layer's cache is written."""
        tokens = batch.sample_index
        positions = batch.positions.index_select(0, tokens)
        return cls(
            positions=positions,
            cache_index=batch.cache_index.index_select(0, tokens),
            block_table=batch.block_table,
            token_slots=batch.token_slots.index_select(0, tokens),
            absorbed_context_lens=_own_context(positions),
            expanded_slots=batch.expanded_slots[:0],
            query_start=batch.query_start[:1],
            context_lens=batch.context_lens[:0],
        )


def _own_context(positions: Tensor) -> Tensor:
    """How many cached tokens each token sees, itself included."""
    return (positions + 1).to(torch.int32)


class LatentAttention:
    """MLA. The cache keeps one latent and one rope key per token; `w_kv_b` expands the latent to
    keys and values per head. The absorbed form never expands: `w_uk` is absorbed into the query
    and `w_uv` into the output (DeepSeek-V2, section 2.1.2), both views of `w_kv_b`. Which form a
    token attends in is not decided here: the two round differently.
    """

    def __init__(self, config: DeepseekV3Config, new: Parameters, ops: Ops, cos_sin: Tensor):
        self.ops = ops
        self.cos_sin = cos_sin
        self.scale = config.softmax_scale
        self.rank = config.kv_lora_rank
        self.nope = config.qk_nope_head_dim
        self.rope = config.qk_rope_head_dim
        self.qk = config.qk_head_dim
        self.heads = config.num_heads
        hidden, value = config.hidden_size, config.v_head_dim

        # One matrix from the hidden state down: query (compressed, or all heads), latent, rope key.
        self.q_width = config.q_lora_rank or self.heads * self.qk
        down_width = self.q_width + self.rank + self.rope
        self.w_down = new(down_width, hidden)
        self.b_down = new.zeros(down_width) if config.attention_bias else None
        self.q_up = (
            (new(config.q_lora_rank), new(self.heads * self.qk, config.q_lora_rank))
            if config.q_lora_rank
            else None
        )  # norm and matrix that turn the compressed query into heads
        self.kv_norm = new(self.rank)
        self.w_kv_b = new(self.heads, self.nope + value, self.rank)
        self.w_uk = self.w_kv_b[:, : self.nope].transpose(1, 2)  # [H, rank, nope]
        self.w_uv = self.w_kv_b[:, self.nope :]  # [H, v, rank]
        self.w_o = new(hidden, self.heads * value)
        self.b_o = new(hidden) if config.attention_bias else None

    def write_cache(self, x: Tensor, step: Step, kv: Tensor) -> Tensor:
        """Cache the latent and rope key of tokens x `[T, D]`; their queries, compressed."""
        ops = self.ops
        down = ops.linear(x, self.w_down, self.b_down)
        q, latent, key = down.tensor_split((self.q_width, self.q_width + self.rank), dim=1)
        latent = ops.rms_norm(latent, self.kv_norm, LATENT_NORM_EPS)
        key = ops.rope_interleaved(key.unsqueeze(1), step.positions, self.cos_sin)
        ops.mla_cache_write(kv, latent, key.squeeze(1), step.cache_index)
        return q

    def attend(self, q: Tensor, step: Step, kv: Tensor) -> Tensor:
        """Compressed queries of `write_cache` → [T, D], reading the cached context."""
        ops = self.ops
        if self.q_up is not None:
            q_norm, w_q = self.q_up
            q = ops.linear(ops.rms_norm(q, q_norm, LATENT_NORM_EPS), w_q)
        q_nope, q_rope = q.view(-1, self.heads, self.qk).tensor_split((self.nope,), dim=2)
        q_rope = ops.rope_interleaved(q_rope, step.positions, self.cos_sin)
        n = len(step.absorbed_context_lens)
        if n == len(q):
            out = self._absorbed(q_nope, q_rope, step, kv)
        elif not n:
            out = self._expanded(q_nope, q_rope, step, kv)
        else:
            absorbed = self._absorbed(q_nope[:n], q_rope[:n], step, kv)
            out = torch.cat([absorbed, self._expanded(q_nope[n:], q_rope[n:], step, kv)])
        return ops.linear(out, self.w_o, self.b_o)

    def _absorbed(self, q_nope: Tensor, q_rope: Tensor, step: Step, kv: Tensor) -> Tensor:
        ops = self.ops
        q = torch.cat([ops.head_linear(q_nope, self.w_uk), q_rope], dim=2)
        latent = ops.mla_decode(
            q.unsqueeze(1),
            kv,
            step.block_table,
            step.token_slots[: len(q)],
            step.absorbed_context_lens,
            self.scale,
            self.rank,
        )
        return ops.head_linear(latent.squeeze(1), self.w_uv).flatten(1)

    def _expanded(self, q_nope: Tensor, q_rope: Tensor, step: Step, kv: Tensor) -> Tensor:
        out = self.ops.mla_prefill(
            torch.cat([q_nope, q_rope], dim=2),
            kv,
            step.block_table,
            step.expanded_slots,
            step.query_start,
            step.context_lens,
            self.w_kv_b,
            self.scale,
        )
        return out.flatten(1)

    def weight_targets(self, config: DeepseekV3Config, prefix: str, targets: WeightTargets) -> None:
        q_down, kv_down = self.w_down.tensor_split((self.q_width,))

        def add_rotary(name: str, destination: Tensor, shape: tuple[int, ...]) -> None:
            targets.add_written_by(
                prefix + name,
                shape,
                lambda source: copy_rotary_rows(
                    destination, source, self.rope, config.rope_interleave
                ),
            )

        if self.q_up is None:
            q_name, w_q = "q_proj.weight", q_down
        else:
            q_name, w_q = "q_b_proj.weight", self.q_up[1]
            targets.add(prefix + "q_a_proj.weight", q_down)
            targets.add(prefix + "q_a_layernorm.weight", self.q_up[0])
        add_rotary(q_name, w_q.view(self.heads, self.qk, -1), tuple(w_q.shape))
        add_rotary("kv_a_proj_with_mqa.weight", kv_down, tuple(kv_down.shape))
        if self.b_down is not None:
            q_bias, kv_bias = self.b_down.tensor_split((self.q_width,))
            # Only the compressing projections have a bias; that of `q_proj` stays zero.
            if self.q_up is not None:
                targets.add(prefix + "q_a_proj.bias", q_bias)
            add_rotary("kv_a_proj_with_mqa.bias", kv_bias.unsqueeze(1), tuple(kv_bias.shape))
        targets.add(prefix + "kv_a_layernorm.weight", self.kv_norm)
        kv_b_shape = (self.heads * self.w_kv_b.shape[1], self.rank)
        targets.add(prefix + "kv_b_proj.weight", self.w_kv_b, kv_b_shape)
        targets.add(prefix + "o_proj.weight", self.w_o)
        if self.b_o is not None:
            targets.add(prefix + "o_proj.bias", self.b_o)


class Mlp:
    """SwiGLU: down(silu(gate x) * up x), gate and up in one matrix."""

    def __init__(self, hidden: int, intermediate: int, new: Parameters, ops: Ops):
        self.ops = ops
        self.w_gate_up = new(2 * intermediate, hidden)
        self.w_down = new(hidden, intermediate)

    def forward(self, x: Tensor) -> Tensor:
        ops = self.ops
        return ops.linear(ops.silu_and_mul(ops.linear(x, self.w_gate_up)), self.w_down)

    def weight_targets(self, prefix: str, targets: WeightTargets) -> None:
        gate, up = self.w_gate_up.chunk(2)
        targets.add(prefix + "gate_proj.weight", gate)
        targets.add(prefix + "up_proj.weight", up)
        targets.add(prefix + "down_proj.weight", self.w_down)


class MoE:
    """Sigmoid-routed experts and shared experts, all in one stack with the shared ones last.

    S shared experts are one MLP of S times the width in the checkpoint. SwiGLU works column by
    column and `down` sums over columns, so it is the sum of S experts of the common width.
    """

    def __init__(self, hidden: int, moe: MoeConfig, new: Parameters, ops: Ops):
        self.ops = ops
        self.moe = moe
        stack, inner = moe.num_experts + moe.num_shared, moe.intermediate_size
        self.w_router = new(moe.num_experts, hidden)
        # Added to the scores for the choice only; kept in fp32, as checkpoints do.
        self.router_bias = new(moe.num_experts, dtype=torch.float32)
        self.w_gate_up = new(stack, 2 * inner, hidden)
        self.w_down = new(stack, hidden, inner)

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

    def weight_targets(self, prefix: str, targets: WeightTargets) -> None:
        routed, shared, inner = self.moe.num_experts, self.moe.num_shared, self.w_down.shape[2]
        hidden = self.w_down.shape[1]
        targets.add(prefix + "gate.weight", self.w_router)
        targets.add(prefix + "gate.e_score_correction_bias", self.router_bias)
        gate, up = self.w_gate_up.chunk(2, dim=1)
        # All experts in one tensor, as `transformers` 5 keeps them, or one by one.
        fused = targets.holds(prefix + "experts.gate_up_proj")
        if fused:
            targets.add(prefix + "experts.gate_up_proj", self.w_gate_up[:routed])
            targets.add(prefix + "experts.down_proj", self.w_down[:routed])
        for i in range(0 if fused else routed):
            expert = f"{prefix}experts.{i}."
            targets.add(expert + "gate_proj.weight", gate[i])
            targets.add(expert + "up_proj.weight", up[i])
            targets.add(expert + "down_proj.weight", self.w_down[i])
        if shared:
            expert, width = f"{prefix}shared_experts.", shared * inner
            targets.add(expert + "gate_proj.weight", gate[routed:], (width, hidden))
            targets.add(expert + "up_proj.weight", up[routed:], (width, hidden))
            down = self.w_down[routed:].transpose(0, 1)  # [D, S, I]
            targets.add(expert + "down_proj.weight", down, (hidden, width))


class DecoderLayer:
    """Pre-norm attention, then pre-norm MLP or experts."""

    def __init__(
        self, config: DeepseekV3Config, index: int, new: Parameters, ops: Ops, cos_sin: Tensor
    ):
        hidden, moe = config.hidden_size, config.moe_of_layer(index)
        self.input_norm = new(hidden)
        self.attention = LatentAttention(config, new, ops, cos_sin)
        self.post_attention_norm = new(hidden)
        self.mlp = (
            MoE(hidden, moe, new, ops) if moe else Mlp(hidden, config.intermediate_size, new, ops)
        )

    def weight_targets(self, config: DeepseekV3Config, prefix: str, targets: WeightTargets) -> None:
        targets.add(prefix + "input_layernorm.weight", self.input_norm)
        self.attention.weight_targets(config, prefix + "self_attn.", targets)
        targets.add(prefix + "post_attention_layernorm.weight", self.post_attention_norm)
        self.mlp.weight_targets(prefix + "mlp.", targets)


class DeepseekV3ForCausalLM(CausalLM):
    config: DeepseekV3Config

    @staticmethod
    def read_config(file: ConfigFile) -> DeepseekV3Config:
        return DeepseekV3Config.from_file(file)

    @staticmethod
    def reconcile(config: DeepseekV3Config, found: Mapping[str, TensorInfo]) -> DeepseekV3Config:
        return keep_head(config, found)

    def __init__(
        self, config: DeepseekV3Config, device: torch.device | str, dtype: torch.dtype, ops: Ops
    ) -> None:
        self.config = config
        self.ops = ops
        new = Parameters(device, dtype)
        cos_sin = config.rope.table(config.max_position_embeddings, device)
        self.embedding = new(config.vocab_size, config.hidden_size)
        self.layers = [DecoderLayer(config, i, new, ops, cos_sin) for i in range(config.num_layers)]
        self.norm = new(config.hidden_size)
        self.head = (
            self.embedding
            if config.tie_word_embeddings
            else new(config.vocab_size, config.hidden_size)
        )
        self.weight_bytes = new.nbytes

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, pool: KVPool) -> Tensor:
        """Logits of the sampled tokens. Once the last layer's cache is written, only they go on,
        and absorbed, whatever else is in the batch."""
        ops, eps = self.ops, self.config.rms_norm_eps
        step = Step.of(batch)
        residual = ops.embedding(batch.token_ids, self.embedding)
        x = ops.rms_norm(residual, self.layers[0].input_norm, eps)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            if i:
                x, residual = ops.add_rms_norm(x, residual, layer.input_norm, eps)
            kv = pool.layers[i]
            q = layer.attention.write_cache(x, step, kv)
            if i == last and not batch.is_absorbed_and_sampled:
                if not len(batch.sample_index):
                    return torch.empty((0, len(self.head)), device=self.head.device)
                step = Step.of_sampled(batch)
                q = q.index_select(0, batch.sample_index)
                residual = residual.index_select(0, batch.sample_index)
            x = layer.attention.attend(q, step, kv)
            x, residual = ops.add_rms_norm(x, residual, layer.post_attention_norm, eps)
            x = layer.mlp.forward(x)
        x, _ = ops.add_rms_norm(x, residual, self.norm, eps)
        return ops.linear(x, self.head, out_dtype=torch.float32)

    def weight_targets(self, found: Collection[str] = ()) -> WeightTargets:
        prefix = self.config.body_prefix
        names = CheckpointNames(self.config, found)
        targets = WeightTargets(found, partial(self.left_out, names), names.because)
        targets.add(f"{prefix}embed_tokens.weight", self.embedding)
        for i, layer in enumerate(self.layers):
            layer.weight_targets(self.config, f"{prefix}layers.{i}.", targets)
        targets.add(f"{prefix}norm.weight", self.norm)
        if not self.config.tie_word_embeddings:
            targets.add(self.config.head_name, self.head)
        add_saved_frequencies(targets, self.config)
        return targets

    def left_out(self, names: CheckpointNames, name: str) -> str | None:
        """Why a tensor of the checkpoint is not wanted, None when it should not be there."""
        return names.left_out(name)


def copy_rotary_rows(destination: Tensor, source: Tensor, rope_dim: int, interleaved: bool) -> None:
    """Copy a projection `[..., rows, K]` whose last `rope_dim` rows make rotary columns.

    A checkpoint that pairs row i with i + rope_dim / 2 is brought into the interleaved order
    (2i, 2i + 1), so that one rope op serves both; query and key move alike.
    """
    source = source.view(destination.shape)
    if interleaved:
        destination.copy_(source)
        return
    rows = torch.arange(destination.shape[-2]).tensor_split((-rope_dim,))
    order = torch.cat([rows[0], rows[1].view(2, -1).t().flatten()])
    destination.copy_(source[..., order, :])
