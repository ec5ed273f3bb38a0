# SPDX-License-Identifier: MIT
"""wgmma on the software GPU against numpy."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
import ts_gpusim
from gpusim_operands import operand
from gpusim_tensor_kernels import (
    BOX,
    STEPS,
    THREADS,
    TYPES,
    image_to_box,
    kernel,
    launch,
    own_part,
    random_matrix,
    registers,
    thread_words,
)


@pytest.fixture
def hopper() -> Iterator[None]:
    with ts_gpusim.device("sm_90a"):
        yield


WGMMA_KS = {"f16": 16, "bf16": 16, "tf32": 8, "e4m3": 32, "e5m2": 32, "s8": 32, "u8": 32}
D_TYPES = {"f32": np.float32, "f16": np.float16, "s32": np.int32}


def wgmma_ptx(
    n: int, types: str, count: int, size: int, a_type: str, in_registers: bool, constants: str
) -> str:
    """`count`: registers of D. D, and A in registers, are words of a thread."""
    shape = f"m64n{n}k{WGMMA_KS[a_type]}.{types}"
    steps = ""
    for step in range(STEPS):
        a = "%a" if not in_registers else registers(4, count + 4 * step)
        steps += f"    ld.param.u64 %a, [descriptions+{16 * step}];\n"
        steps += f"    ld.param.u64 %b, [descriptions+{16 * step + 8}];\n"
        operands = f"{registers(count)}, {a}, %b, %enable{constants}"
        steps += f"    wgmma.mma_async.sync.aligned.{shape} {operands};\n"
    load_a = own_part("init", 0) + thread_words("init", 4 * STEPS, "ld", count)
    return kernel(
        ".param .u64 in, .param .u64 init, .param .u64 out, .param .align 8 .b8 descriptions[32]",
        size,
        f"""{image_to_box(size)}{load_a}{own_part("out", 0)}
    setp.eq.u32 %enable, %rank, 0;
    fence.proxy.async.shared::cta;
    bar.sync 0;
{thread_words("out", count, "ld")}
    wgmma.fence.sync.aligned;
{steps}
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
{thread_words("out", count, "st")}""",
        arch="sm_90a",
    )


def run_wgmma(
    n: int,
    a_type: str,
    b_type: str,
    swizzle: int = 128,
    a_mn_major: bool = False,
    b_mn_major: bool = False,
    in_registers: bool = False,
    negated: bool = False,
    d_type: str = "f32",
    saturates: bool = False,
) -> None:
    a, b = random_matrix(64, a_type, 1), random_matrix(n, b_type, 2)
    own_a, own_b = operand(a.bits, swizzle, a_mn_major), operand(b.bits, swizzle, b_mn_major)
    image = np.concatenate([own_a.image, own_b.image])
    descriptions = b"".join(
        struct.pack("<QQ", own_a.wgmma(i, BOX), own_b.wgmma(i, BOX + own_a.image.size))
        for i in range(STEPS)
    )
    # PTX ISA 9.7.15.5.1: a thread's registers of A and of D.
    thread, i = np.meshgrid(np.arange(THREADS), np.arange(n // 2), indexing="ij")
    row = thread // 32 * 16 + thread % 32 // 4
    rows, columns = row + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * (thread % 4) + i % 2
    words = a.bits.view(np.uint32)  # [64, 8 for each step]
    thread, j = np.meshgrid(np.arange(THREADS), np.arange(4 * STEPS), indexing="ij")
    row = thread // 32 * 16 + thread % 32 // 4
    fragment = words[row + 8 * (j % 2), j // 4 * 8 + thread % 4 + 4 * (j // 2 % 2)]
    before = np.random.default_rng(3).standard_normal((THREADS, n // 2)) * 4
    if saturates:  # so that some sums are too large, and some too small
        before = np.clip(before * 2**29, -(2**31), 2**31 - 1)
    out = before.astype(D_TYPES[d_type])
    product = a.values @ b.values.T * (-1 if negated else 1)
    expected = out + product[rows, columns]
    integers = out.astype(np.int64)
    for step in range(STEPS):
        ks = slice(step * WGMMA_KS[a_type], (step + 1) * WGMMA_KS[a_type])
        integers += (a.values[:, ks] @ b.values[:, ks].T)[rows, columns].astype(np.int64)
        if saturates:
            integers = np.clip(integers, -(2**31), 2**31 - 1)
    constants = ""
    if d_type != "s32":
        constants = f", {-1 if negated else 1}, 1"
    if a_type in ("f16", "bf16"):
        constants += "" if in_registers else f", {int(a_mn_major)}"
        constants += f", {int(b_mn_major)}"
    types = f"{'satfinite.' if saturates else ''}{d_type}.{a_type}.{b_type}"
    count = out[0].nbytes // 4
    ptx = wgmma_ptx(n, types, count, image.size, a_type, in_registers, constants)
    launch(ptx, [image, np.ascontiguousarray(fragment), out, descriptions])
    if d_type == "s32":
        np.testing.assert_array_equal(out, integers)
    else:
        tolerance = 1e-2 if d_type == "f16" else 1e-5
        np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("in_registers", [False, True])
@pytest.mark.parametrize("n", [8, 64, 256])
@pytest.mark.parametrize(
    ("a_type", "b_type"),
    [*[(type_, type_) for type_ in TYPES], ("e4m3", "e5m2"), ("e5m2", "e4m3")],
)
def test_wgmma_multiplies_every_type(a_type, b_type, n, in_registers, hopper):
    run_wgmma(n, a_type, b_type, in_registers=in_registers)


@pytest.mark.parametrize("swizzle", [16, 32, 64, 128])
@pytest.mark.parametrize("a_mn_major", [False, True])
@pytest.mark.parametrize("b_mn_major", [False, True])
def test_wgmma_reads_every_layout(swizzle, a_mn_major, b_mn_major, hopper):
    run_wgmma(64, "bf16", "bf16", swizzle, a_mn_major, b_mn_major)


@pytest.mark.parametrize("in_registers", [False, True])
def test_wgmma_negates(in_registers, hopper):
    run_wgmma(32, "f16", "f16", in_registers=in_registers, negated=True)


@pytest.mark.parametrize("in_registers", [False, True])
@pytest.mark.parametrize("type_", ["f16", "e4m3", "e5m2"])
def test_wgmma_accumulates_in_halves(type_, in_registers, hopper):
    run_wgmma(64, type_, type_, in_registers=in_registers, d_type="f16")


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("in_registers", [False, True])
@pytest.mark.parametrize(("a_type", "b_type"), [("s8", "s8"), ("u8", "u8"), ("s8", "u8")])
def test_wgmma_multiplies_integers(a_type, b_type, in_registers, saturates, hopper):
    run_wgmma(64, a_type, b_type, in_registers=in_registers, d_type="s32", saturates=saturates)
