# SPDX-License-Identifier: MIT
"""Backend `cutedsl`: our kernels for Hopper and Blackwell, written in CuTe DSL.

A kernel is compiled for the device at its first call, once for each spec; until then nothing here
imports the DSL. docs/kernels.md says on which rung of the ladder each stands: so far all have been
executed by the software GPU only.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

from ts_kernels.cutedsl.attention import mla_cache_write
from ts_kernels.cutedsl.mla import MAX_HEADS, PAGE_SIZES, mla_decode
from ts_kernels.registry import BackendUnavailable, Implementation, Registry

__all__ = ["mla_cache_write", "mla_decode", "register"]

_PRIORITY = 20


def register(registry: Registry) -> None:
    if find_spec("cutlass") is None:
        raise BackendUnavailable("nvidia-cutlass-dsl is not installed")
    cuda, bf16 = frozenset({"cuda"}), frozenset({torch.bfloat16})
    registry.register(
        Implementation(
            "mla_cache_write",
            "cutedsl",
            mla_cache_write,
            devices=cuda,
            architectures=frozenset({"sm_90a", "sm_100a"}),
            dtypes=bf16,
            traits={
                "kv_lora_rank": frozenset({256, 512}),
                "qk_rope_head_dim": frozenset({64, 128}),
            },
            priority=_PRIORITY,
        )
    )
    registry.register(
        Implementation(
            "mla_decode",
            "cutedsl",
            mla_decode,
            devices=cuda,
            architectures=frozenset({"sm_100a"}),
            dtypes=bf16,
            traits={
                "kv_lora_rank": frozenset({512}),
                "qk_rope_head_dim": frozenset({64}),
                "num_heads": frozenset(range(1, MAX_HEADS + 1)),
                "page_size": frozenset(PAGE_SIZES),
            },
            priority=_PRIORITY,
        )
    )
