# SPDX-License-Identifier: MIT
"""The geometry of a DeepSeek-V3 model, read from config.json and checked.

Sizes must be stated. What else is missing takes the default of `transformers`' DeepseekV3Config;
`topk_method`, `scoring_func` and `moe_layer_freq`, which that class does not have, take the one
value that it computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from ts_kernels.registry import Traits

from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.errors import ModelError
from dynamo_tokenspeed.model.kv_pool import KVSpec
from dynamo_tokenspeed.model.layers.mla_attention import MlaConfig
from dynamo_tokenspeed.model.layers.moe import MoeConfig
from dynamo_tokenspeed.model.layers.rope import Rope


@dataclass(frozen=True)
class DeepseekV3Config:
    architecture: str
    dtype: torch.dtype | None  # the checkpoint's, None when config.json does not say
    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    num_layers: int
    rms_norm_eps: float
    tie_word_embeddings: bool  # for a checkpoint without a head; one that is there is used
    body_prefix: str  # what tensor names begin with, all but the head's
    head_name: str

    attention: MlaConfig
    intermediate_size: int  # of the dense layers
    moe: MoeConfig | None  # None: every layer is dense
    first_moe_layer: int
    moe_layer_freq: int
    file: ConfigFile = field(compare=False, repr=False)  # what it was read from, for sentences

    @property
    def kv_spec(self) -> KVSpec:
        return KVSpec(self.num_layers, self.attention.cache_width)

    @property
    def traits(self) -> Traits:
        return {
            "hidden_size": self.hidden_size,
            **self.attention.traits,
            **(self.moe.traits if self.moe else {}),
        }

    def moe_of_layer(self, layer: int) -> MoeConfig | None:
        """The experts of this layer, None where its MLP is dense."""
        routed = layer >= self.first_moe_layer and layer % self.moe_layer_freq == 0
        return self.moe if routed else None

    @classmethod
    def from_file(
        cls, file: ConfigFile, body_prefix: str = "model.", head_name: str = "lm_head.weight"
    ) -> DeepseekV3Config:
        """Read and check; `ModelError` with one sentence for what cannot be served."""
        refuse_quantized(file)
        if file.values.get("per_layer_config"):
            raise ModelError(
                f"{file.path} has per_layer_config, but this version computes layers of one kind; "
                "remove the key if they are"
            )
        file.choice("hidden_act", ("silu",), "silu")
        max_positions = file.integer("max_position_embeddings")
        return cls(
            architecture=file.architecture()
            if "architectures" in file
            else "DeepseekV3ForCausalLM",
            dtype=file.dtype(),
            vocab_size=file.integer("vocab_size"),
            max_position_embeddings=max_positions,
            hidden_size=file.integer("hidden_size"),
            num_layers=file.integer("num_hidden_layers"),
            rms_norm_eps=file.number("rms_norm_eps", 1e-6),
            tie_word_embeddings=file.flag("tie_word_embeddings", False),
            body_prefix=body_prefix,
            head_name=head_name,
            attention=_attention(file, max_positions),
            intermediate_size=file.integer("intermediate_size"),
            moe=_moe(file),
            first_moe_layer=file.integer("first_k_dense_replace", 3, minimum=0),
            moe_layer_freq=file.integer("moe_layer_freq", 1),
            file=file,
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


def _attention(file: ConfigFile, max_positions: int) -> MlaConfig:
    rope_dim = file.integer("qk_rope_head_dim")
    if rope_dim % 2:
        raise ModelError(f"{file.path} has qk_rope_head_dim {rope_dim}, which must be even")
    if "head_dim" in file and file.integer("head_dim") != rope_dim:
        # What `transformers` sizes its rope table by.
        raise ModelError(
            f"{file.path} has head_dim {file.integer('head_dim')}, but qk_rope_head_dim "
            f"{rope_dim}; the two must be equal, correct one or remove head_dim"
        )
    return MlaConfig(
        hidden_size=file.integer("hidden_size"),
        num_heads=file.integer("num_attention_heads"),
        q_lora_rank=file.integer_or_null("q_lora_rank"),
        kv_lora_rank=file.integer("kv_lora_rank"),
        qk_nope_head_dim=file.integer("qk_nope_head_dim"),
        qk_rope_head_dim=rope_dim,
        v_head_dim=file.integer("v_head_dim"),
        bias=file.flag("attention_bias", False),
        rope=Rope.from_config(file, rope_dim, max_positions),
        rope_interleave=file.flag("rope_interleave", True),
    )


def _moe(file: ConfigFile) -> MoeConfig | None:
    num_experts = file.integer_or_null("n_routed_experts")
    if num_experts is None:
        return None
    file.choice("topk_method", ("noaux_tc",), "noaux_tc")
    file.choice("scoring_func", ("sigmoid",), "sigmoid")
    moe = MoeConfig(
        num_experts=num_experts,
        num_shared=file.integer_or_null("n_shared_experts", minimum=0) or 0,
        intermediate_size=file.integer("moe_intermediate_size"),
        top_k=file.integer("num_experts_per_tok"),
        num_groups=file.integer("n_group", 8),
        topk_groups=file.integer("topk_group", 4),
        norm_topk_prob=file.flag("norm_topk_prob", True),
        routed_scaling_factor=file.number("routed_scaling_factor", 2.5),
    )
    groups, topk_groups = file.stated("n_group"), file.stated("topk_group")
    if moe.num_experts % moe.num_groups:
        raise ModelError(
            f"{file.path} has n_routed_experts {moe.num_experts}, which {groups} does not divide"
        )
    if moe.topk_groups > moe.num_groups:
        raise ModelError(f"{file.path} has {topk_groups}, more than its {groups}")
    group_size = moe.num_experts // moe.num_groups
    # A group's score is the sum of its two best experts.
    if group_size < 2:
        raise ModelError(
            f"{file.path} has {groups} for n_routed_experts {moe.num_experts}, "
            "but a group holds at least 2 experts"
        )
    if moe.top_k > moe.topk_groups * group_size:
        raise ModelError(
            f"{file.path} has num_experts_per_tok {moe.top_k}, but with {groups} and {topk_groups} "
            f"only {moe.topk_groups * group_size} experts can be chosen"
        )
    return moe
