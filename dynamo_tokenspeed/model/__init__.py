# SPDX-License-Identifier: MIT
"""Models: what they compute, how their weights are loaded, and the KV pool they write to."""

from dynamo_tokenspeed.model.causal_lm import CausalLM, ModelConfig
from dynamo_tokenspeed.model.checkpoint import Checkpoint, load_model, resolve_dtype
from dynamo_tokenspeed.model.errors import ModelError, WeightsError
from dynamo_tokenspeed.model.forward_batch import ForwardBatch
from dynamo_tokenspeed.model.kv_pool import KVPool, KVSpec

__all__ = [
    "CausalLM",
    "Checkpoint",
    "ForwardBatch",
    "KVPool",
    "KVSpec",
    "ModelConfig",
    "ModelError",
    "WeightsError",
    "load_model",
    "resolve_dtype",
]
