# SPDX-License-Identifier: MIT
"""Where the tensors of a DeepSeek-V3 checkpoint and its config.json speak of the same thing.

Tensors that are there are used, or refused by a sentence that names the key they contradict.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dynamo_tokenspeed.model.checkpoint_headers import TensorInfo, same_values
from dynamo_tokenspeed.model.errors import WeightsError
from dynamo_tokenspeed.model.families.deepseek_v3_config import DeepseekV3Config
from dynamo_tokenspeed.model.layers.rope import Rope
from dynamo_tokenspeed.model.weight import Target

log = logging.getLogger(__name__)

# They join the previous hidden state and the next token in front of a multi-token prediction
# layer (DeepSeek-V3, section 2.2); no other layer has them.
MTP_ONLY = ("eh_proj.", "enorm.", "hnorm.")
ROUTED = ("first_k_dense_replace", "moe_layer_freq", "n_routed_experts", "moe_intermediate_size")
# How a tensor's name ends → the keys of config.json that decide whether it is there and its shape.
KEYS = {
    r"lm_head\.weight": ("tie_word_embeddings", "vocab_size", "hidden_size"),
    r"embed_tokens\.weight": ("vocab_size", "hidden_size"),
    r"self_attn\.(q_a_proj|kv_a_proj_with_mqa|o_proj)\.bias": ("attention_bias", "q_lora_rank"),
    r"self_attn\.q_(proj|a_proj|a_layernorm|b_proj)\.weight": (
        "q_lora_rank",
        "num_attention_heads",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
    ),
    r"self_attn\.kv_a_(proj_with_mqa|layernorm)\.weight": ("kv_lora_rank", "qk_rope_head_dim"),
    r"self_attn\.kv_b_proj\.weight": (
        "kv_lora_rank",
        "num_attention_heads",
        "qk_nope_head_dim",
        "v_head_dim",
    ),
    r"self_attn\.o_proj\.weight": ("num_attention_heads", "v_head_dim"),
    r"mlp\.gate\.(weight|e_score_correction_bias)": ROUTED,
    r"mlp\.experts\.(\d+\.(gate|up|down)_proj\.weight|gate_up_proj|down_proj)": ROUTED,
    r"mlp\.shared_experts\.(gate|up|down)_proj\.weight": ("n_shared_experts", *ROUTED),
    r"mlp\.(gate|up|down)_proj\.weight": ("intermediate_size", *ROUTED[:3]),
    r"rotary_emb\.inv_freq": ("qk_rope_head_dim",),
    r"norm\.weight": ("hidden_size",),
}


def keep_head(config: DeepseekV3Config, found: Mapping[str, TensorInfo]) -> DeepseekV3Config:
    """`config` that ties the head to the embedding only where the checkpoint has no other head."""
    head = config.head_name
    if not config.tie_word_embeddings or head not in found:
        return config
    if same_values(found, head, f"{config.body_prefix}embed_tokens.weight"):
        return config
    log.warning(
        "config.json ties the head to the embedding, but the checkpoint holds another %s: "
        "that is used; correct tie_word_embeddings",
        head,
    )
    return replace(config, tie_word_embeddings=False)


class DeepseekV3Names:
    """The names of a checkpoint's tensors, held against `config`."""

    def __init__(self, config: DeepseekV3Config, names: Collection[str]) -> None:
        self.config = config
        self.names = names
        self.layers: set[int] = set()
        self.mtp_layers: set[int] = set()
        for name in names:
            layer, rest = self._layer(name)
            if layer is not None:
                self.layers.add(layer)
                if rest.startswith(MTP_ONLY):
                    self.mtp_layers.add(layer)

    def left_out(self, name: str) -> str | None:
        """Why a tensor is not wanted, None when it should not be there."""
        layer, _ = self._layer(name)
        if layer in self.mtp_layers and layer >= self.config.num_layers:
            return "they predict more than one token (multi-token prediction), which is not served"
        if name == self.config.head_name and self.config.tie_word_embeddings:
            return "the head equals the embedding, as tie_word_embeddings says"
        return None

    def because(self, name: str) -> str:
        """What decides that this tensor is wanted, its shape, or that it has no place."""
        config = self.config
        layer, rest = self._layer(name)
        if layer is not None and (layer >= config.num_layers or layer in self.mtp_layers):
            last = max(self.layers - self.mtp_layers, default=-1)
            return (
                f"config.json has num_hidden_layers {config.num_layers}, but the checkpoint's "
                f"last layer that is not for multi-token prediction is layer {last}"
            )
        if layer is not None and layer not in self.layers:
            return (
                f"config.json has num_hidden_layers {config.num_layers}, but the checkpoint holds "
                f"no tensor of layer {layer}"
            )
        fused = name.removesuffix(rest) + "mlp.experts.gate_up_proj"
        if re.match(r"mlp\.experts\.\d+\.", rest) and fused in self.names:
            return f"{fused} holds all experts of its layer already"
        keys = next((keys for end, keys in KEYS.items() if re.search(end + "$", name)), ())
        if not keys:
            return "no DeepSeek-V3 model has one of this name"
        return "config.json has " + ", ".join(map(config.file.stated, keys))

    def saved_frequencies(self) -> dict[str, Target]:
        """Rope frequencies that old checkpoints hold are compared with those of config.json."""
        rope = self.config.attention.rope
        return {
            name: Target((rope.dim // 2,), partial(_compare_frequencies, name, rope))
            for name in self.names
            if name.startswith(self.config.body_prefix) and name.endswith("rotary_emb.inv_freq")
        }

    def _layer(self, name: str) -> tuple[int | None, str]:
        """The number of the layer that a tensor is in, and its name within the layer."""
        match = re.match(rf"{re.escape(self.config.body_prefix)}layers\.(\d+)\.(.*)", name)
        return (int(match[1]), match[2]) if match else (None, name)


def _compare_frequencies(name: str, rope: Rope, saved: Tensor) -> None:
    # With YaRN or without: which of the two was saved depends on the program that did.
    plain = Rope(rope.dim, rope.theta).frequencies()
    for expected in (rope.frequencies(), plain):
        if torch.allclose(saved.float(), expected, rtol=2**-7):  # a bf16 checkpoint rounded them
            return
    raise WeightsError(
        f"tensor {name} holds other rope frequencies than rope_theta {rope.theta} and rope_scaling "
        "in config.json give; correct config.json, or remove the tensor if it is wrong"
    )
