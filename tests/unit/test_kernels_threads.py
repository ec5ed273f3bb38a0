# SPDX-License-Identifier: MIT
"""One pool of threads computes, the other does not spin beside it."""

from collections.abc import Iterator

import pytest
import torch
import ts_kernels


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


def test_fewer_than_one_thread_is_refused() -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        ts_kernels.set_num_threads(0, ts_kernels.bind("cpu", torch.float32))
