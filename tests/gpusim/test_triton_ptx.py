# SPDX-License-Identifier: MIT
"""PTX that Triton made for Hopper (cp.async, ldmatrix, wgmma): the files say from what."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import ts_gpusim

THREADS = (128, 1, 1)
SCRATCH = [0, 0]  # two pointers that Triton adds, to memory that these kernels do not use


def ptx(name: str) -> Path:
    return Path(__file__).parent / f"triton_{name}.ptx"


@pytest.mark.parametrize("columns", [1024, 1000, 33])
def test_softmax_is_that_of_each_row(columns):
    x = torch.randn(3, columns, generator=torch.Generator().manual_seed(columns))
    y = torch.zeros_like(x)
    with ts_gpusim.device("sm_90a"):
        ts_gpusim.launch_ptx(
            ptx("softmax"), "softmax", (3, 1, 1), THREADS, [x, y, columns, *SCRATCH],
            shared_bytes=16,
        )  # fmt: skip
    torch.testing.assert_close(y, x.softmax(-1), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("m", "n", "k"), [(64, 64, 64), (128, 192, 320)])
def test_matmul_is_a_product(m, n, k, seed):
    generator = torch.Generator().manual_seed(m + n + k)
    a = torch.randn(m, k, generator=generator).half()
    b = torch.randn(k, n, generator=generator).half()
    c = torch.zeros(m, n, dtype=torch.float16)
    with ts_gpusim.device("sm_90a", execute=ts_gpusim.Machine(seed)):
        ts_gpusim.launch_ptx(
            ptx("matmul"), "matmul", (m // 64, n // 64, 1), THREADS, [a, b, c, m, n, k, *SCRATCH],
            shared_bytes=49152,
        )  # fmt: skip
    torch.testing.assert_close(c.float(), a.float() @ b.float(), atol=1e-4, rtol=2**-11)
