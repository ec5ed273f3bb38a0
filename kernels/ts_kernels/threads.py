# SPDX-License-Identifier: MIT
"""How many threads the kernels of this process may use."""

from __future__ import annotations

import os

import torch

from ts_kernels import cgroup
from ts_kernels.signatures import Ops

MAX_THREADS = 1024  # of the native backend's pool (csrc/thread_pool.h)

# What a model's time goes into; the other ops are too short to be worth a second thread.
_HEAVY_OPS = ("linear", "head_linear", "mla_decode", "mla_prefill", "moe_experts")


def usable_cpus() -> int:
    """CPUs that this process may use all the time: its affinity, or its cgroup's quota if less.

    A quota is rounded down: with one thread more than it pays for, the group is stopped for the
    rest of every period (0.1 s), and every token with it.
    """
    cpus = len(os.sched_getaffinity(0))
    quota = cgroup.cpu_quota()
    if quota is not None:
        cpus = min(cpus, max(1, int(quota)))
    return min(cpus, MAX_THREADS)


def set_num_threads(threads: int, ops: Ops) -> None:
    """Let the CPU kernels that `ops` chose run on `threads` threads, 1 to MAX_THREADS (ValueError).

    torch and the native backend have a pool of their own each. Where every heavy op is native,
    torch's pool gets one thread: two pools that wait for work by spinning take each other's cores.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads is {threads}, but it must be in 1..{MAX_THREADS}")
    backends = {ops.selections[op].implementation.backend for op in _HEAVY_OPS}
    if "native" in backends:
        from ts_kernels import _native

        _native.set_num_threads(threads)
    torch.set_num_threads(1 if backends == {"native"} else threads)
