# SPDX-License-Identifier: MIT
"""Backend `reference`: every op in fp32 PyTorch, slow and obvious. It is the truth for tests."""

from __future__ import annotations

from ts_kernels.reference import attention, dense, moe, norm, rope, sampling, step
from ts_kernels.registry import Implementation, Registry

_FUNCTIONS = (
    dense.embedding,
    dense.linear,
    dense.head_linear,
    norm.rms_norm,
    norm.add_rms_norm,
    norm.silu_and_mul,
    rope.rope_interleaved,
    attention.mla_cache_write,
    attention.mla_decode,
    attention.mla_prefill,
    moe.moe_route,
    moe.moe_experts,
    sampling.sample,
    sampling.token_logprobs,
    step.prepare_step,
    step.append_tokens,
)


def register(registry: Registry) -> None:
    for function in _FUNCTIONS:
        registry.register(Implementation(function.__name__, "reference", function, priority=-100))
