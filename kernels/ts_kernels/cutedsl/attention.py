# SPDX-License-Identifier: MIT
"""The ops of latent attention that have a kernel here, as the model calls them."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor


def mla_cache_write(
    kv: Tensor,
    latent: Tensor,
    rope_key: Tensor,
    norm_weight: Tensor,
    cos_sin: Tensor,
    positions: Tensor,
    cache_index: Tensor,
    eps: float,
) -> None:
    write = _cache_write(latent.shape[1], rope_key.shape[1], eps)
    write(kv, latent, rope_key, norm_weight, cos_sin, positions, cache_index, 1.0)


@cache
def _cache_write(rank: int, rope: int, eps: float) -> Any:
    from ts_kernels.cutedsl import cache_write

    return cache_write.compiled(rank, rope, eps, fp8=False)
