# SPDX-License-Identifier: MIT
"""Our cache write on the software GPU: what `reference` writes, nothing else, and no finding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import ts_gpusim
import ts_kernels
from torch import Tensor
from ts_gpusim.machine import Machine
from ts_kernels import default_registry
from ts_kernels.conformance import CASES, Maker, check

LARGEST_E4M3 = 448.0
(IMPLEMENTATION,) = (
    i for i in default_registry().implementations("mla_cache_write") if i.backend == "cutedsl"
)
CASE = CASES["mla_cache_write"]


@pytest.fixture(params=["sm_90a", "sm_100a"])
def gpu(request: pytest.FixtureRequest) -> Iterator[str]:
    from ts_kernels.cutedsl import attention

    attention._cache_write.cache_clear()  # a kernel is compiled for one architecture
    yield request.param
    attention._cache_write.cache_clear()


@pytest.mark.parametrize(
    ("tokens", "page_size", "rank"),
    [(1, 16, 512), (3, 32, 512), (4, 64, 512), (5, 128, 512), (33, 16, 512), (9, 1, 256)],
)
def test_it_writes_what_reference_writes(gpu: str, tokens: int, page_size: int, rank: int) -> None:
    sizes = {"tokens": tokens, "page_size": page_size, "kv_lora_rank": rank, "rope_dim": 64}
    for seed in range(3):
        machine = Machine(seed=seed, collect=True)
        with ts_gpusim.device(gpu, sms=4, execute=machine):
            check(IMPLEMENTATION, CASE, sizes, torch.bfloat16, seed=seed)
        assert not machine.findings


def arguments(scale: float = 1.0) -> tuple[Tensor, ...]:
    sizes = {"tokens": 6, "page_size": 16, "kv_lora_rank": 512, "rope_dim": 64}
    kv, latent, key, weight, *rest, _ = CASE.make(Maker(torch.bfloat16, "cpu", 0), sizes)
    return kv, latent, key, weight * scale, *rest


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_an_fp8_entry_is_the_bf16_entry_divided_by_its_scale(gpu: str, scale: float) -> None:
    from ts_kernels.cutedsl import cache_write

    kv, *inputs = arguments()
    fp8 = torch.zeros_like(kv, dtype=torch.float8_e4m3fn)
    kv.zero_()
    with ts_gpusim.device(gpu, sms=4):
        write = cache_write.compiled(512, 64, 1e-6, fp8=True)
        write(fp8, *inputs, 1 / scale)
    ts_kernels.mla_cache_write(kv, *inputs, 1e-6)
    assert torch.equal(fp8.float(), (kv.float() * (1 / scale)).to(torch.float8_e4m3fn).float())


def test_an_fp8_entry_is_saturated_not_lost(gpu: str) -> None:
    from ts_kernels.cutedsl import cache_write

    kv, *inputs = arguments(scale=1e4)
    fp8 = torch.zeros_like(kv, dtype=torch.float8_e4m3fn)
    with ts_gpusim.device(gpu, sms=4):
        cache_write.compiled(512, 64, 1e-6, fp8=True)(fp8, *inputs, 1.0)
    written = fp8.float()
    assert written.isfinite().all()
    assert written[..., :512].abs().max() == LARGEST_E4M3


def test_it_moves_each_byte_once(gpu: str) -> None:
    tokens, width = 6, 576
    kv, *inputs = arguments()
    machine = Machine()
    with ts_gpusim.device(gpu, sms=4, execute=machine):
        IMPLEMENTATION.function(kv, *inputs, 1e-6)
    counters = machine.runs[0].counters
    assert counters is not None
    entry, weight, row = 2 * width, 2 * 512, 4 * 64
    assert counters.global_stored == tokens * entry
    # Every lane names its token's place, and the low half of its position.
    assert counters.global_loaded == tokens * (entry + weight + row + 32 * (8 + 4))
