# SPDX-License-Identifier: MIT
"""Parsed PTX modules, each parsed once: a compiled function launches the same text many times."""

from __future__ import annotations

from functools import lru_cache

from ts_gpusim.faults import LaunchError
from ts_gpusim.ptx.parser import parse
from ts_gpusim.ptx.syntax import Kernel, Module


@lru_cache(maxsize=64)
def module_of(ptx: str) -> Module:
    return parse(ptx)


def kernel_of(ptx: str, name: str) -> Kernel:
    """Raise LaunchError where the module has no such kernel."""
    kernels = module_of(ptx).kernels
    if name not in kernels:
        has = ", ".join(kernels) if kernels else "none"
        raise LaunchError(f"the PTX has no kernel named {name!r}; its kernels: {has}")
    return kernels[name]


@lru_cache(maxsize=256)
def static_shared_bytes(ptx: str, name: str) -> int:
    """Of the kernel's own variables, and of the module's that it names; padding not counted."""
    kernel = kernel_of(ptx, name)
    shared = [v for v in module_of(ptx).variables.values() if v.space == "shared" and v.size]
    named = [v for v in shared if any(v.name in i.text for i in kernel.instructions)]
    own = [v for v in kernel.variables.values() if v.space == "shared"]
    return sum(variable.size for variable in (*named, *own))
