# SPDX-License-Identifier: MIT
"""One pool of threads computes, the other does not spin beside it."""

import os
from collections.abc import Iterator

import pytest
import torch
import ts_kernels
from ts_kernels import cgroup


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_torchs_pool_has_the_threads_where_torch_computes() -> None:
    overrides = dict.fromkeys(ts_kernels.OP_NAMES, "torch")
    ts_kernels.set_num_threads(2, ts_kernels.bind("cpu", torch.float32, overrides))
    assert torch.get_num_threads() == 2


def test_torchs_pool_has_the_threads_where_it_computes_one_heavy_op() -> None:
    ops = ts_kernels.bind("cpu", torch.float32, {"moe_experts": "torch"})
    ts_kernels.set_num_threads(2, ops)
    assert torch.get_num_threads() == 2


def test_torchs_pool_has_one_thread_where_native_computes() -> None:
    if "native" in ts_kernels.default_registry().unavailable:
        pytest.skip(ts_kernels.default_registry().unavailable["native"])
    from ts_kernels import _native

    ts_kernels.set_num_threads(2, ts_kernels.bind("cpu", torch.float32))
    assert torch.get_num_threads() == 1
    assert _native.num_threads() == 2


@pytest.mark.parametrize("threads", [0, 1025])
def test_a_number_of_threads_that_makes_no_sense_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads is {threads}.*1..1024"):
        ts_kernels.set_num_threads(threads, ts_kernels.bind("cpu", torch.float32))


@pytest.mark.parametrize(
    ("affinity", "quota", "cpus"),
    [(64, None, 64), (64, 2.0, 2), (2, 64.0, 2), (64, 2.5, 2), (64, 0.5, 1), (5000, None, 1024)],
)
def test_the_usable_cpus_are_the_least_of_affinity_quota_and_what_a_pool_holds(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float | None, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    monkeypatch.setattr(cgroup, "cpu_quota", lambda: quota)
    assert ts_kernels.usable_cpus() == cpus
