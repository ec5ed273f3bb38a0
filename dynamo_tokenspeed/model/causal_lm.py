# SPDX-License-Identifier: MIT
"""What every model family offers to the engine, and what it is built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from ts_kernels import Ops

from dynamo_tokenspeed.model.checkpoint_headers import TensorInfo
from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.model.forward_batch import ForwardBatch
from dynamo_tokenspeed.model.kv_pool import KVPool, KVSpec
from dynamo_tokenspeed.model.weights import WeightTargets


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


class CausalLM(ABC):
    """A model on one device, holding its parameters and the ops it calls.

    A family is a subclass in a file of its own and a line in `registry.FAMILIES`.
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
    def __init__(
        self, config: Any, device: torch.device | str, dtype: torch.dtype, ops: Ops
    ) -> None:
        """Allocate the parameters, uninitialized; `weight_targets` says what fills them."""

    @abstractmethod
    def weight_targets(self, found: Collection[str] = ()) -> WeightTargets:
        """Every checkpoint tensor that the family expects, and the view that receives it.

        `found` are the names in the checkpoint, where it may hold the same in several layouts.
        """

    @abstractmethod
    def forward(self, batch: ForwardBatch, pool: KVPool) -> Tensor:
        """One step. Writes the tokens' KV into `pool` and returns fp32 logits
        `[len(batch.sample_index), vocab_size]`."""

    @property
    def kv_spec(self) -> KVSpec:
        return self.config.kv_spec
