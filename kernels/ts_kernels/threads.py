# SPDX-License-Identifier: MIT
"""How many threads the kernels of this process may use."""

from __future__ import annotations

import torch

from ts_kernels.signatures import Ops

# What a model's time goes into; the other ops are too short to be worth a second thread.
_HEAVY_OPS = ("linear", "head_linear", "mla_decode", "mla_prefill", "moe_experts")


def set_num_threads(threads: int, ops: Ops) -> None:
    """Let the CPU kernels that `ops` chose run on `threads` threads. ValueError below 1.

    torch and the native backend have a pool of their own each. Where every heavy op is native,
    torch's pool gets one thread: two pools that wait for work by spinning take each other's cores.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}, but at least one must compute")
    backends = {ops.selections[op].implementation.backend for op in _HEAVY_OPS}
    if "native" in backends:
        from ts_kernels import _native

        _native.set_num_threads(threads)
    torch.set_num_threads(1 if backends == {"native"} else threads)
