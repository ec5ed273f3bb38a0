# SPDX-License-Identifier: MIT
"""The geometry of a DeepSeek-V3 model, read from config.json and checked."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.errors import ModelError
from dynamo_tokenspeed.model.kv_pool import KVSpec
from dynamo_tokenspeed.model.rope import Rope


@dataclass(frozen=True)
class MoeConfig:
    """Routed and shared experts (DeepSeek-V3, arXiv:2412.19437, section 2.1.2)."""

    num_experts: int
    num_shared: int
    intermediate_size: int  # of one expert; shared experts have the same width each
    top_k: int
    num_groups: int
    topk_groups: int
    norm_topk_prob: bool
    routed_scaling_factor: float


@dataclass(frozen=True)
class DeepseekV3Config:
    """One DeepSeek-V3 model; attention as in DeepSeek-V2 (arXiv:2405.04434, section 2.1)."""

    architecture: str
    dtype: torch.dtype | None  # the checkpoint's, None when config.json does not say
    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    num_layers: int
    num_mtp_layers: int  # multi-token-prediction layers that follow in the checkpoint, not served
    rms_norm_eps: float
    tie_word_embeddings: bool
    weights_prefix: str  # what tensor names of the language model begin with

    num_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    attention_bias: bool
    rope: Rope
    rope_interleave: bool  # pairs (2i, 2i+1) in the checkpoint; otherwise (i, i + dim/2)

    intermediate_size: int  # of the dense layers
    moe: MoeConfig | None  # None: every layer is dense
    first_moe_layer: int
    moe_layer_freq: int

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def softmax_scale(self) -> float:
        """1/sqrt(head dim), times YaRN's temperature squared."""
        scale: float = self.qk_head_dim**-0.5
        return scale * self.rope.softmax_scale

    @property
    def kv_spec(self) -> KVSpec:
        return KVSpec(self.num_layers, self.kv_lora_rank + self.qk_rope_head_dim)

    def moe_of_layer(self, layer: int) -> MoeConfig | None:
        """The experts of this layer, None where its MLP is dense."""
        routed = layer >= self.first_moe_layer and layer % self.moe_layer_freq == 0
        return self.moe if routed else None

    @classmethod
    def from_file(cls, file: ConfigFile, weights_prefix: str = "") -> DeepseekV3Config:
        """Read and check; `ModelError` with one sentence for what cannot be served."""
        refuse_quantized(file)
        file.choice("hidden_act", ("silu",), "silu")
        max_positions = file.integer("max_position_embeddings")
        rope_dim = file.integer("qk_rope_head_dim")
        return cls(
            architecture=file.architecture()
            if "architectures" in file
            else "DeepseekV3ForCausalLM",
            dtype=file.dtype(),
            vocab_size=file.integer("vocab_size"),
            max_position_embeddings=max_positions,
            hidden_size=file.integer("hidden_size"),
            num_layers=file.integer("num_hidden_layers"),
            num_mtp_layers=file.integer(_mtp_key(file), 0, minimum=0),
            rms_norm_eps=file.number("rms_norm_eps"),
            tie_word_embeddings=file.flag("tie_word_embeddings", False),
            weights_prefix=weights_prefix,
            num_heads=file.integer("num_attention_heads"),
            q_lora_rank=file.integer("q_lora_rank") if "q_lora_rank" in file else None,
            kv_lora_rank=file.integer("kv_lora_rank"),
            qk_nope_head_dim=file.integer("qk_nope_head_dim"),
            qk_rope_head_dim=rope_dim,
            v_head_dim=file.integer("v_head_dim"),
            attention_bias=file.flag("attention_bias", False),
            rope=Rope.from_config(file, rope_dim, max_positions),
            rope_interleave=file.flag("rope_interleave", True),
            intermediate_size=file.integer("intermediate_size"),
            moe=_moe(file),
            first_moe_layer=file.integer("first_k_dense_replace", minimum=0),
            moe_layer_freq=file.integer("moe_layer_freq", 1),
        )


def refuse_quantized(file: ConfigFile) -> None:
    """`ModelError` for a checkpoint with quantized weights."""
    quantization = file.nested("quantization_config")
    if quantization is not None:
        method = quantization.text("quant_method", "an unnamed method")
        raise ModelError(
            f"{file.path} announces weights quantized by {method}, which this version cannot "
            "load; serve a float32 or bfloat16 checkpoint"
        )


def _mtp_key(file: ConfigFile) -> str:
    return "num_mtp_layers" if "num_mtp_layers" in file else "num_nextn_predict_layers"


def _moe(file: ConfigFile) -> MoeConfig | None:
    if "n_routed_experts" not in file:
        return None
    file.choice("topk_method", ("noaux_tc",), "noaux_tc")
    file.choice("scoring_func", ("sigmoid",), "sigmoid")
    moe = MoeConfig(
        num_experts=file.integer("n_routed_experts"),
        num_shared=file.integer("n_shared_experts", 0, minimum=0),
        intermediate_size=file.integer("moe_intermediate_size"),
        top_k=file.integer("num_experts_per_tok"),
        num_groups=file.integer("n_group", 1),
        topk_groups=file.integer("topk_group", 1),
        norm_topk_prob=file.flag("norm_topk_prob"),
        routed_scaling_factor=file.number("routed_scaling_factor"),
    )
    if moe.num_experts % moe.num_groups:
        raise ModelError(
            f"{file.path} has n_routed_experts {moe.num_experts}, which n_group {moe.num_groups} "
            "does not divide"
        )
    if moe.topk_groups > moe.num_groups:
        raise ModelError(
            f"{file.path} has topk_group {moe.topk_groups}, more than its n_group {moe.num_groups}"
        )
    group_size = moe.num_experts // moe.num_groups
    # A group's score is the sum of its two best experts.
    if group_size < 2:
        raise ModelError(
            f"{file.path} has n_group {moe.num_groups} for n_routed_experts {moe.num_experts}, "
            "but a group holds at least 2 experts"
        )
    if moe.top_k > moe.topk_groups * group_size:
        raise ModelError(
            f"{file.path} has num_experts_per_tok {moe.top_k}, but topk_group {moe.topk_groups} "
            f"groups hold only {moe.topk_groups * group_size} experts"
        )
    return moe
