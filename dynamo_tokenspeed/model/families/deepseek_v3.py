# SPDX-License-Identifier: MIT
"""DeepSeek-V3 (arXiv:2412.19437), and with it Kimi K2: latent attention and mixture of experts."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from ts_kernels import Ops

from dynamo_tokenspeed.model.causal_lm import CausalLM
from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.families.deepseek_v3_config import DeepseekV3Config
from dynamo_tokenspeed.model.families.deepseek_v3_names import DeepseekV3Names, keep_head
from dynamo_tokenspeed.model.forward_batch import ForwardBatch
from dynamo_tokenspeed.model.kv_pool import KVPool
from dynamo_tokenspeed.model.layers.mla_attention import MlaAttention
from dynamo_tokenspeed.model.layers.mlp import Mlp
from dynamo_tokenspeed.model.layers.moe import Moe
from dynamo_tokenspeed.model.parameters import Parameters
from dynamo_tokenspeed.model.weight import Placement
from dynamo_tokenspeed.model.weight_targets import WeightTargets


class DecoderLayer:
    """Pre-norm attention, then pre-norm MLP or experts."""

    def __init__(
        self, config: DeepseekV3Config, index: int, new: Parameters, ops: Ops, cos_sin: Tensor
    ) -> None:
        hidden, moe, mlp = config.hidden_size, config.moe_of_layer(index), new.under("mlp.")
        self.input_norm = new((hidden,), Placement("input_layernorm.weight")).data
        self.attention = MlaAttention(config.attention, new.under("self_attn."), ops, cos_sin)
        norm = new((hidden,), Placement("post_attention_layernorm.weight"))
        self.post_attention_norm = norm.data
        self.mlp = (
            Moe(hidden, moe, mlp, ops) if moe else Mlp(hidden, config.intermediate_size, mlp, ops)
        )


class DeepseekV3ForCausalLM(CausalLM):
    config: DeepseekV3Config
    names: ClassVar[type[DeepseekV3Names]] = DeepseekV3Names

    reconcile = staticmethod(keep_head)

    @staticmethod
    def read_config(file: ConfigFile) -> DeepseekV3Config:
        return DeepseekV3Config.from_file(file)

    def __init__(self, config: DeepseekV3Config, new: Parameters, ops: Ops) -> None:
        self.config = config
        self.ops = ops
        body = new.under(config.body_prefix)
        cos_sin = config.attention.rope.table(config.max_position_embeddings, new.device)
        table = (config.vocab_size, config.hidden_size)
        self.embedding = body(table, Placement("embed_tokens.weight", shard=0)).data
        self.layers = [
            DecoderLayer(config, i, body.under(f"layers.{i}."), ops, cos_sin)
            for i in range(config.num_layers)
        ]
        self.norm = body((config.hidden_size,), Placement("norm.weight")).data
        self.head = (
            self.embedding
            if config.tie_word_embeddings
            else new(table, Placement(config.head_name, shard=0)).data
        )
        self.weight_bytes = new.nbytes

    @classmethod
    def weight_targets(cls, config: DeepseekV3Config, new: Parameters) -> WeightTargets:
        names = cls.names(config, new.found)
        wanted = new.targets() | names.saved_frequencies()
        return WeightTargets(wanted, names.left_out, names.because)

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, pool: KVPool) -> Tensor:
        """Logits of the sampled tokens. Once the last layer's cache is written, only they go on,
        and absorbed, whatever else is in the batch."""
        ops, eps = self.ops, self.config.rms_norm_eps
        residual = ops.embedding(batch.token_ids, self.embedding)
        x = ops.rms_norm(residual, self.layers[0].input_norm, eps)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            if i:
                x, residual = ops.add_rms_norm(x, residual, layer.input_norm, eps)
            kv = pool.layers[i]
            q = layer.attention.write_cache(x, batch, kv)
            if i == last and not batch.is_absorbed_and_sampled:
                if not len(batch.sample_index):
                    return torch.empty((0, len(self.head)), device=self.head.device)
                q = q.index_select(0, batch.sample_index)
                residual = residual.index_select(0, batch.sample_index)
                batch = batch.sampled()
            x = layer.attention.attend(q, batch, kv)
            x, residual = ops.add_rms_norm(x, residual, layer.post_attention_norm, eps)
            x = layer.mlp.forward(x)
        x, _ = ops.add_rms_norm(x, residual, self.norm, eps)
        return ops.linear(x, self.head, out_dtype=torch.float32)
