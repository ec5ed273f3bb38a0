# SPDX-License-Identifier: MIT
"""What every model family offers to the engine, and what it is built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from ts_kernels import Ops
from ts_kernels.registry import Traits

from dynamo_tokenspeed.model.checkpoint_headers import TensorInfo
from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.forward_batch import ForwardBatch
from dynamo_tokenspeed.model.kv_pool import KVPool, KVSpec
from dynamo_tokenspeed.model.parameters import Parameters
from dynamo_tokenspeed.model.weight_targets import WeightTargets


class ModelConfig(Protocol):
    """What the engine asks of any family's config; each family has its own dataclass."""

    @property
    def architecture(self) -> str: ...
    @property
    def dtype(self) -> torch.dtype | None: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...
    @property
    def kv_spec(self) -> KVSpec: ...
    @property
    def traits(self) -> Traits:
        """The sizes by which kernels are chosen (`ts_kernels.registry.Traits`)."""


class CausalLM(ABC):
    """A model on one device, holding its parameters and the ops it calls.

    A family is a subclass in a file of its own and a line in `families.FAMILIES`.
    """

    config: ModelConfig
    weight_bytes: int  # of the parameters on the device
    has_weights: ClassVar[bool] = True  # a checkpoint lies beside its config.json

    @staticmethod
    @abstractmethod
    def read_config(file: ConfigFile) -> ModelConfig:
        """The family's config; `ModelError` for one that it cannot compute."""

    @staticmethod
    def reconcile(config: Any, found: Mapping[str, TensorInfo]) -> Any:
        """`config`, corrected where the tensors that were found prove it wrong."""
        return config

    @abstractmethod
    def __init__(self, config: Any, new: Parameters, ops: Ops) -> None:
        """Declare the parameters, which are allocated and not yet filled."""

    @classmethod
    def weight_targets(cls, config: Any, new: Parameters) -> WeightTargets:
        """What the parameters of `new` want, and what the family knows of other tensors."""
        return WeightTargets(new.targets())

    @abstractmethod
    def forward(self, batch: ForwardBatch, pool: KVPool) -> Tensor:
        """One step. Writes the tokens' KV into `pool` and returns fp32 logits
        `[len(batch.sample_index), vocab_size]`."""

    @property
    def kv_spec(self) -> KVSpec:
        return self.config.kv_spec
