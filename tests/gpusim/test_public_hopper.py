# SPDX-License-Identifier: MIT
"""Public Hopper kernels on the software GPU: those of `quack-kernels`, unmodified.

Its GEMM (wgmma, TMA with multicast, persistent, clusters, ping-pong) with its epilogues, and its
reductions over rows, some of which a cluster shares. Where a test does not name a finding there is
none: the machine raises the first. The GEMM for Blackwell of the same wheel is here, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
import ts_gpusim
from gpusim_quack import (
    GemmConfig,
    cross_entropy_fwd,
    gemm,
    gemm_act,
    on,
    rmsnorm_fwd,
    softmax_fwd,
)
from torch.nn import functional
from ts_gpusim.machine import Machine

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # names of the DSL

SMS = 4  # fewer than tiles: a persistent CTA has several
FP8 = torch.float8_e4m3fn
EPSILON = {torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.float32: 2**-20}


@dataclass
class Gpu:
    machine: Machine
    device: ts_gpusim.Device


def gpu(arch: str) -> Iterator[Gpu]:
    machine = Machine()
    with on(arch), ts_gpusim.device(arch, sms=SMS, execute=machine) as device:
        yield Gpu(machine, device)


@pytest.fixture
def hopper() -> Iterator[Gpu]:
    yield from gpu("sm_90a")


@pytest.fixture
def blackwell() -> Iterator[Gpu]:
    yield from gpu("sm_100a")


def lines(machine: Machine) -> set[tuple[str, ...]]:
    """The source lines of the instructions that each finding names."""
    return {tuple(re.findall(r"(\w+\.py:\d+)\)", found.sentence)) for found in machine.findings}


def assert_close(found: torch.Tensor, expected: torch.Tensor, absolute: float = 1e-4) -> None:
    """As close as sums in another order and one rounding to the result's type leave it."""
    relative = EPSILON[found.dtype]
    torch.testing.assert_close(found.float(), expected, atol=absolute, rtol=relative)


# D = alpha A B^T + beta C + row + column


@dataclass(frozen=True)
class Product:
    """A: [batch, m, k], B: [batch, n, k]; `options` are the kernel's."""

    m: int = 256
    n: int = 256
    k: int = 128
    batch: int = 1
    dtype: torch.dtype = torch.bfloat16
    output: torch.dtype = torch.bfloat16
    tile: tuple[int, int] = (128, 128)
    cluster: tuple[int, int] = (1, 1)
    k_major: tuple[bool, bool] = (True, True)  # of A, of B
    options: dict[str, object] = field(default_factory=dict)

    def operands(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(self.m + self.n + self.k)
        a = torch.randn(self.batch, self.m, self.k, generator=generator).to(self.dtype)
        b = torch.randn(self.batch, self.n, self.k, generator=generator).to(self.dtype)
        a, b = (
            tensor if k_major else tensor.mT.contiguous().mT
            for tensor, k_major in zip((a, b), self.k_major, strict=True)
        )
        return a, b

    def compute(self, c: torch.Tensor | None = None, **options: object) -> torch.Tensor:
        d = torch.zeros(self.batch, self.m, self.n, dtype=self.output)
        semaphore = options.pop("semaphore", None)
        a, b = self.operands()
        gemm(a, b, d, c, semaphore, *self.tile, *self.cluster, **self.options, **options)
        return d

    def expected(self) -> torch.Tensor:
        a, b = self.operands()
        return a.float() @ b.float().mT


PRODUCTS = {
    "128x128": Product(),
    "128x256": Product(tile=(128, 256)),
    "128x192": Product(n=384, tile=(128, 192)),
    "256x128": Product(m=512, tile=(256, 128), cluster=(2, 1)),
    "64x64": Product(tile=(64, 64), k=64),
    "ping-pong": Product(m=512, options={"pingpong": True}),
    "not-persistent": Product(options={"persistent": False}),
    "cluster-2x1": Product(m=512, cluster=(2, 1)),
    "cluster-1x2": Product(n=512, cluster=(1, 2)),
    "cluster-2x2": Product(m=512, n=512, cluster=(2, 2)),
    "cluster-2x1-ping-pong": Product(m=512, cluster=(2, 1), options={"pingpong": True}),
    "long": Product(m=128, n=128, k=1024),
    "ragged": Product(m=200, n=136, k=72),
    "batch": Product(batch=3, n=128),
    "a-m-major": Product(k_major=(False, True)),
    "b-n-major": Product(k_major=(True, False)),
    "float-output": Product(output=torch.float32),
    "half": Product(dtype=torch.float16, output=torch.float16),
    "fp8": Product(dtype=FP8, k=256),
    "split-k": Product(m=128, k=512, options={"split_k": 2}, output=torch.float32),
}


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_the_hopper_gemm_is_a_product(product, hopper):
    found = product.compute()
    assert hopper.machine.runs[0].launch.cluster == (*product.cluster, 1)
    assert_close(found, product.expected())


@pytest.mark.parametrize("name", ["cluster-2x1-ping-pong", "split-k"])
def test_the_hopper_gemm_has_the_same_bits_whatever_the_seed(name, hopper):
    results = []
    for hopper.machine.seed in (1, 2, 3):
        results.append(PRODUCTS[name].compute().view(torch.uint8))
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_ctas_of_the_hopper_gemm_take_tiles_from_a_counter(hopper):
    """The one that it got is told to the rest of its cluster with st.async."""
    semaphore = torch.zeros(1, dtype=torch.int32)
    hopper.device.register(semaphore, "semaphore")
    product = Product(m=512, cluster=(2, 1), options={"is_dynamic_persistent": True})
    assert_close(product.compute(semaphore=semaphore), product.expected())
    assert "st.async" in hopper.machine.runs[0].launch.ptx


@pytest.mark.parametrize("cluster", [(1, 1), (2, 1)])
def test_the_hopper_gemm_adds_a_matrix_and_two_vectors(cluster, hopper):
    product = Product(cluster=cluster)
    c, row, column = matrix_and_vectors(product)
    found = product.compute(c, rowvec_bias=row, colvec_bias=column, alpha=0.5, beta=2.0)
    expected = 0.5 * product.expected() + 2.0 * c.float() + row[:, None, :] + column[:, :, None]
    assert_close(found, expected)


def test_the_hopper_gemm_adds_to_its_output(hopper):
    product = Product()
    a, b = product.operands()
    before, _, _ = matrix_and_vectors(product)
    found = before.clone()
    gemm(a, b, found, None, None, 128, 128, 1, 1, add_to_output=True)
    # TMA adds in bf16: the product is rounded, then the sum.
    rounding = EPSILON[torch.bfloat16] * float(product.expected().abs().max())
    assert_close(found, before.float() + product.expected(), absolute=rounding)


def matrix_and_vectors(product: Product) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of the output's shape, of its rows, and of its columns."""
    generator = torch.Generator().manual_seed(1)
    shape = (product.batch, product.m, product.n)
    matrix, row, column = (
        torch.randn(size, generator=generator) for size in (shape, shape[::2], shape[:2])
    )
    return matrix.to(product.output), row, column


# Activations


def gelu(x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate="tanh")


def swiglu(x: torch.Tensor) -> torch.Tensor:
    """Gates and values alternate."""
    return functional.silu(x[:, ::2]) * x[:, 1::2]


ACTIVATIONS = {"gelu_tanh_approx": gelu, "swiglu": swiglu}


@pytest.mark.parametrize(("name", "formula"), ACTIVATIONS.items(), ids=ACTIVATIONS)
def test_the_hopper_gemm_ends_with_a_bias_and_an_activation(name, formula, hopper):
    generator = torch.Generator().manual_seed(2)
    m, n, k = 256, 384, 128
    a = torch.randn(m, k, generator=generator).bfloat16()
    b = (torch.randn(n, k, generator=generator) * k**-0.5).bfloat16().T
    bias = torch.randn(n, generator=generator)
    config = GemmConfig(is_dynamic_persistent=False)  # 128 x 192, cluster of 2, ping-pong
    before, after = gemm_act(a, b, None, bias, name, tuned=False, config=config)
    assert_close(before, a.float() @ b.float() + bias)
    # Sigmoid and tanh are approximate.
    assert_close(after, formula(a.float() @ b.float() + bias), absolute=1e-3)


# Rows of a matrix: a CTA has 4 or more short ones, a cluster shares a long one.

ROWS = [(8, 512, 1), (4, 1000, 1), (2, 8192, 1), (2, 32768, 2)]


def matrix(rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(columns)
    return torch.randn(rows, columns, generator=generator).bfloat16()


@pytest.mark.parametrize(("rows", "columns", "ctas"), ROWS)
def test_softmax_is_that_of_each_row(rows, columns, ctas, hopper):
    x = matrix(rows, columns)
    assert_close(softmax_fwd(x), x.float().softmax(-1), absolute=1e-7)
    assert hopper.machine.runs[0].launch.cluster == (1, ctas, 1)


@pytest.mark.parametrize(("rows", "columns", "ctas"), ROWS)
def test_cross_entropy_is_that_of_each_row(rows, columns, ctas, hopper):
    x = matrix(rows, columns)
    targets = torch.arange(rows) * 7
    expected = functional.cross_entropy(x.float(), targets, reduction="none")
    assert_close(cross_entropy_fwd(x, targets), expected, absolute=1e-5)
    assert hopper.machine.runs[0].launch.cluster == (1, ctas, 1)


@pytest.mark.parametrize(("rows", "columns", "ctas"), ROWS)
def test_rms_norm_is_that_of_each_row(rows, columns, ctas, hopper):
    hopper.machine.collect = True
    x = matrix(rows, columns)
    weight = torch.randn(columns, generator=torch.Generator().manual_seed(3))
    found, *_ = rmsnorm_fwd(x, weight, eps=1e-5)
    expected = functional.rms_norm(x.float(), (columns,), weight, 1e-5)
    assert_close(found, expected)
    assert hopper.machine.runs[0].launch.cluster == (1, ctas, 1)
    # Elements past the end of a row are multiplied by weights that were not loaded, and not stored.
    assert lines(hopper.machine) == ({("rmsnorm.py:357",)} if columns == 1000 else set())


@pytest.mark.parametrize("kernel", [softmax_fwd, cross_entropy_fwd, rmsnorm_fwd])
def test_threads_without_a_row_read_what_nobody_loaded(kernel, hopper):
    """A CTA has 4 rows: 5 leave three without one. What they compute of it is not stored."""
    targets = [torch.zeros(5, dtype=torch.int64)] if kernel is cross_entropy_fwd else []
    with pytest.raises(ts_gpusim.Fault, match=r"^uninitialised: .*shared memory"):
        kernel(matrix(5, 512), *targets)


# Blackwell

BLACKWELL_PRODUCTS = {
    "128x128": Product(),
    "cluster-2x1": Product(cluster=(2, 1)),  # two CTAs multiply together
    "256x256": Product(m=512, n=512, tile=(256, 256), cluster=(2, 1)),
    "ragged": Product(m=200, n=136, k=72),
    "float-output": Product(output=torch.float32),
    "fp8": Product(dtype=FP8, k=256),
    "split-k": Product(m=128, k=512, options={"split_k": 2}, output=torch.float32),
}


@pytest.mark.parametrize("product", BLACKWELL_PRODUCTS.values(), ids=BLACKWELL_PRODUCTS)
def test_the_blackwell_gemm_is_a_product(product, blackwell):
    blackwell.machine.collect = True
    found = product.compute()
    assert "tcgen05.mma" in blackwell.machine.runs[0].launch.ptx
    assert_close(found, product.expected())
    # Only the last part of a tile is waited for (tcgen05.wait::ld) before its registers are used.
    assert {finding.kind for finding in blackwell.machine.findings} == {"unfinished"}
    assert {first for first, _ in lines(blackwell.machine)} == {"gemm_sm100.py:2348"}
