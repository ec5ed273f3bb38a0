# SPDX-License-Identifier: MIT
"""What the machine's devices can execute, as the names that implementations require."""

from __future__ import annotations

from functools import cache

import torch

_CPU_LEVELS = {"AVX2": ("avx2",), "AVX512": ("avx2", "avx512")}


@cache
def architecture_of(device: str) -> frozenset[str]:
    """Names of the instruction sets of `device` ("cpu", "cuda", "cuda:1").

    cpu: "avx2", "avx512" as torch detects them. cuda: "sm_90" and "sm_90a": code compiled for a
    plain or an architecture-specific target of exactly this compute capability runs on it.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        return frozenset(_CPU_LEVELS.get(torch.backends.cpu.get_cpu_capability(), ()))
    if kind == "cuda" and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability(device)
        return frozenset({f"sm_{major}{minor}", f"sm_{major}{minor}a"})
    return frozenset()
