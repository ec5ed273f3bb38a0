# SPDX-License-Identifier: MIT
"""A benchmark model: it returns tokens without computing.

With it, a measurement of the whole pipe (frontend, worker, scheduler, sampling) holds everything
except a model. config.json: `{"architectures": ["NullForCausalLM"], "vocab_size": …,
"max_position_embeddings": …, "null_token_id": …}`; there are no weights. Every distribution is
the same: `null_token_id` has logit 10, every other token 0, so greedy decoding repeats it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from ts_kernels import Ops
from ts_kernels.registry import Traits

from dynamo_tokenspeed.model.causal_lm import CausalLM
from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.errors import ModelError
from dynamo_tokenspeed.model.forward_batch import ForwardBatch
from dynamo_tokenspeed.model.kv_pool import KVPool, KVSpec
from dynamo_tokenspeed.model.parameters import Parameters


@dataclass(frozen=True)
class NullConfig:
    architecture: str
    dtype: torch.dtype | None
    vocab_size: int
    max_position_embeddings: int
    token_id: int

    @property
    def kv_spec(self) -> KVSpec:
        return KVSpec(num_layers=1, width=1)

    @property
    def traits(self) -> Traits:
        return {}


class NullForCausalLM(CausalLM):
    config: NullConfig
    has_weights = False

    @staticmethod
    def read_config(file: ConfigFile) -> NullConfig:
        vocab_size = file.integer("vocab_size")
        token_id = file.integer("null_token_id", vocab_size - 1, minimum=0)
        if token_id >= vocab_size:
            raise ModelError(
                f"{file.path} has null_token_id {token_id} outside vocab_size {vocab_size}"
            )
        return NullConfig(
            architecture=file.architecture(),
            dtype=file.dtype() or torch.float32,
            vocab_size=vocab_size,
            max_position_embeddings=file.integer("max_position_embeddings"),
            token_id=token_id,
        )

    def __init__(self, config: NullConfig, new: Parameters, ops: Ops) -> None:
        self.config = config
        self.logits = new((1, config.vocab_size), dtype=torch.float32).data.zero_()
        self.logits[0, config.token_id] = 10.0
        self.weight_bytes = new.nbytes

    def forward(self, batch: ForwardBatch, pool: KVPool) -> Tensor:
        """The same row for every sampled token: a view, stride 0 over rows."""
        return self.logits.expand(len(batch.sample_index), -1)
