# SPDX-License-Identifier: MIT
"""The kernels of the wheel `quack-kernels`, imported on a machine without a GPU and without Triton.

When it is imported, its autotuner derives a class from one of Triton's. Nothing here tunes, so
during that import, and no longer, `triton` is a module that has an empty class in its place.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest
import torch._dynamo  # noqa: F401 - asks for Triton when it is imported, so before it seems there

with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of names of the DSL
    triton = ModuleType("triton")
    triton.runtime = SimpleNamespace(cache=SimpleNamespace(FileCacheManager=object))
    patched.setitem(sys.modules, "triton", triton)
    import quack

with warnings.catch_warnings():  # the rest asks torch for more of Triton, and finds none
    warnings.simplefilter("ignore", DeprecationWarning)
    import quack.cache
    import quack.cute_dsl_utils
    import quack.gemm
    from quack.cross_entropy import cross_entropy_fwd
    from quack.gemm import gemm
    from quack.gemm_config import GemmConfig
    from quack.gemm_interface import gemm_act
    from quack.rmsnorm import rmsnorm_fwd
    from quack.softmax import softmax_fwd

__all__ = [
    "GemmConfig",
    "cross_entropy_fwd",
    "gemm",
    "gemm_act",
    "on",
    "rmsnorm_fwd",
    "softmax_fwd",
]

quack.cache.CACHE_ENABLED = False  # what it loads from a file comes without its PTX


@contextmanager
def on(arch: str) -> Iterator[None]:
    """It compiles for `arch`, and forgets afterwards what it has compiled for it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("QUACK_ARCH", arch.rstrip("a"))  # its own way on machines without a GPU
        yield
    quack.gemm._gemm_plan_cache.clear()
    quack.cute_dsl_utils._get_device_capacity_cached.cache_clear()
    quack.cute_dsl_utils.get_max_active_clusters.cache_clear()
    quack.cute_dsl_utils.get_device_multiprocessor_count.cache_clear()
