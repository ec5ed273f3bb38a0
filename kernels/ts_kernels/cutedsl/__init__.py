# SPDX-License-Identifier: MIT
"""Backend `cutedsl`: our kernels for Hopper and Blackwell, written in CuTe DSL.

A kernel is compiled for the device at its first call, once for each spec. docs/kernels.md says on
which rung of the ladder each stands: so far all have been executed by the software GPU only.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

from ts_kernels.registry import BackendUnavailable, Implementation, Registry

ARCHITECTURES = frozenset({"sm_90a", "sm_100a"})


def register(registry: Registry) -> None:
    if find_spec("cutlass") is None:
        raise BackendUnavailable("nvidia-cutlass-dsl is not installed")
    from ts_kernels.cutedsl import attention  # imports the DSL at its first call

    registry.register(
        Implementation(
            "mla_cache_write",
            "cutedsl",
            attention.mla_cache_write,
            devices=frozenset({"cuda"}),
            architectures=ARCHITECTURES,
            dtypes=frozenset({torch.bfloat16}),
            traits={
                "kv_lora_rank": frozenset({256, 512}),
                "qk_rope_head_dim": frozenset({64, 128}),
            },
            priority=20,
        )
    )
