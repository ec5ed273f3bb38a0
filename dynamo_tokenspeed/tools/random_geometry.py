# SPDX-License-Identifier: MIT
"""The geometry of a random checkpoint, and the config.json that states it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Geometry:
    """Sizes under their config.json names. The defaults make a model of 0.3 M parameters."""

    vocab_size: int = 512
    max_position_embeddings: int = 2048
    hidden_size: int = 64
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    q_lora_rank: int | None = 32
    kv_lora_rank: int = 32
    qk_nope_head_dim: int = 16
    qk_rope_head_dim: int = 8
    v_head_dim: int = 16
    intermediate_size: int = 128
    moe_intermediate_size: int = 32
    n_routed_experts: int | None = 8
    n_shared_experts: int | None = 1
    num_experts_per_tok: int = 2
    n_group: int = 2
    topk_group: int = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 2.5
    first_k_dense_replace: int = 1
    moe_layer_freq: int = 1
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_interleave: bool = True
    yarn_factor: float | None = None  # None: plain rope
    yarn_original_max_position_embeddings: int = 256
    yarn_mscale: float = 1.0
    yarn_mscale_all_dim: float = 1.0
    attention_bias: bool = False
    tie_word_embeddings: bool = False


PRESETS = {
    "small": Geometry(),
    # 51.5 M parameters, 22.9 M of them active per token, real MLA head geometry.
    "bench-51m": Geometry(
        vocab_size=2048,
        max_position_embeddings=4096,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        q_lora_rank=256,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        intermediate_size=1024,
        moe_intermediate_size=256,
        n_routed_experts=16,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
    ),
}


def deepseek_v3_config(geometry: Geometry, dtype: str, eos_token_id: int) -> dict[str, Any]:
    """config.json of a DeepseekV3ForCausalLM with the classic keys and those of transformers 5."""
    g = geometry
    rope = {"rope_type": "default", "rope_theta": g.rope_theta}
    if g.yarn_factor is not None:
        rope |= {
            "rope_type": "yarn",
            "factor": g.yarn_factor,
            "original_max_position_embeddings": g.yarn_original_max_position_embeddings,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": g.yarn_mscale,
            "mscale_all_dim": g.yarn_mscale_all_dim,
        }
    copied = {name: value for name, value in vars(g).items() if not name.startswith("yarn_")}
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        **copied,
        "num_key_value_heads": g.num_attention_heads,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "num_nextn_predict_layers": 0,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "rope_scaling": None if g.yarn_factor is None else {**rope, "type": "yarn"},
        "rope_parameters": rope,
        "bos_token_id": eos_token_id,
        "eos_token_id": eos_token_id,
        "use_cache": True,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def kimi_k25_config(geometry: Geometry, dtype: str, eos_token_id: int) -> dict[str, Any]:
    """config.json of a KimiK25ForConditionalGeneration with a vision tower of toy size."""
    text = deepseek_v3_config(geometry, dtype, eos_token_id) | {"model_type": "kimi_k2"}
    unused_token = geometry.vocab_size - 1
    return {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "model_type": "kimi_k25",
        "text_config": text,
        "vision_config": {
            "model_type": "kimi_k25_vision",
            "patch_size": 14,
            "pos_emb_height": 4,
            "pos_emb_width": 4,
            "pos_emb_time": 1,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "hidden_size": VISION_HIDDEN_SIZE,
            "intermediate_size": 2 * VISION_HIDDEN_SIZE,
        },
        "projection_hidden_size": VISION_HIDDEN_SIZE,
        "image_token_id": unused_token,
        "video_token_id": unused_token,
        "media_placeholder_token_id": unused_token,
        "tie_word_embeddings": geometry.tie_word_embeddings,
        "bos_token_id": eos_token_id,
        "eos_token_id": eos_token_id,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


VISION_HIDDEN_SIZE = 32
# A few of the vision tensors, enough to see that a loader leaves them out.
VISION_TENSORS: dict[str, tuple[int, ...]] = {
    "vision_tower.patch_embed.proj.weight": (VISION_HIDDEN_SIZE, 3, 14, 14),
    "vision_tower.patch_embed.proj.bias": (VISION_HIDDEN_SIZE,),
    "mm_projector.pre_norm.weight": (VISION_HIDDEN_SIZE,),
    "mm_projector.pre_norm.bias": (VISION_HIDDEN_SIZE,),
}


def null_config(
    geometry: Geometry, dtype: str, eos_token_id: int, null_token_id: int
) -> dict[str, Any]:
    """config.json of the benchmark model that computes nothing (`model/families/null.py`)."""
    return {
        "architectures": ["NullForCausalLM"],
        "model_type": "null",
        "vocab_size": geometry.vocab_size,
        "max_position_embeddings": geometry.max_position_embeddings,
        "null_token_id": null_token_id,
        # Read by Dynamo's frontend, not by the model.
        "hidden_size": 1,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "bos_token_id": eos_token_id,
        "eos_token_id": eos_token_id,
        "dtype": dtype,
        "torch_dtype": dtype,
    }
