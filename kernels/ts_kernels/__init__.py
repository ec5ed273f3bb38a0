# SPDX-License-Identifier: MIT
"""Portable kernels of an LLM engine: one functional API, several backends, one registry.

ops = ts_kernels.bind("cpu", torch.bfloat16)     # what a model holds: raw, chosen once
ops.rms_norm(x, weight, 1e-6)

ts_kernels.rms_norm(x, weight, 1e-6)             # checked, chosen at every call
print(ts_kernels.select("mla_decode", spec))     # what would serve, and why
"""

from ts_kernels.ops import (
    add_rms_norm,
    append_tokens,
    embedding,
    head_linear,
    linear,
    mla_cache_write,
    mla_decode,
    mla_prefill,
    moe_experts,
    moe_route,
    prepare_step,
    rms_norm,
    rope_interleaved,
    sample,
    silu_and_mul,
    token_logprobs,
)
from ts_kernels.progress import count_progress_in
from ts_kernels.registry import (
    BackendUnavailable,
    Implementation,
    NoImplementation,
    Registry,
    Selection,
    Spec,
)
from ts_kernels.sampling_rows import (
    GREEDY_TEMPERATURE,
    LOWEST_LOGPROB,
    UNSAMPLEABLE,
    Penalties,
    SamplingRows,
    TokenBias,
    is_greedy,
    is_penalised,
)
from ts_kernels.selection import bind, default_registry, select
from ts_kernels.signatures import OP_GROUPS, OP_NAMES, Ops
from ts_kernels.step_arena import StepArrays, StepCounts, StepInputs, pack_step, step_counts
from ts_kernels.threads import MAX_THREADS, set_num_threads, usable_cpus

__all__ = [
    "GREEDY_TEMPERATURE",
    "LOWEST_LOGPROB",
    "MAX_THREADS",
    "OP_GROUPS",
    "OP_NAMES",
    "UNSAMPLEABLE",
    "BackendUnavailable",
    "Implementation",
    "NoImplementation",
    "Ops",
    "Penalties",
    "Registry",
    "SamplingRows",
    "Selection",
    "Spec",
    "StepArrays",
    "StepCounts",
    "StepInputs",
    "TokenBias",
    "add_rms_norm",
    "append_tokens",
    "bind",
    "count_progress_in",
    "default_registry",
    "embedding",
    "head_linear",
    "is_greedy",
    "is_penalised",
    "linear",
    "mla_cache_write",
    "mla_decode",
    "mla_prefill",
    "moe_experts",
    "moe_route",
    "pack_step",
    "prepare_step",
    "rms_norm",
    "rope_interleaved",
    "sample",
    "select",
    "set_num_threads",
    "silu_and_mul",
    "step_counts",
    "token_logprobs",
    "usable_cpus",
]
