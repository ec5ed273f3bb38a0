# SPDX-License-Identifier: MIT
"""The public functions: they check their arguments, choose a backend and call it."""

from ts_kernels.ops.attention import mla_cache_write, mla_decode, mla_prefill
from ts_kernels.ops.dense import embedding, head_linear, linear
from ts_kernels.ops.moe import moe_experts, moe_route
from ts_kernels.ops.norm import add_rms_norm, rms_norm, silu_and_mul
from ts_kernels.ops.rope import rope_interleaved
from ts_kernels.ops.sampling import sample, token_logprobs
from ts_kernels.ops.step import append_tokens, prepare_step

__all__ = [
    "add_rms_norm",
    "append_tokens",
    "embedding",
    "head_linear",
    "linear",
    "mla_cache_write",
    "mla_decode",
    "mla_prefill",
    "moe_experts",
    "moe_route",
    "prepare_step",
    "rms_norm",
    "rope_interleaved",
    "sample",
    "silu_and_mul",
    "token_logprobs",
]
