# SPDX-License-Identifier: MIT
"""tcgen05.mma, tensor memory and its copies on the software GPU against numpy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import ts_gpusim
from gpusim_operands import operand
from gpusim_tensor_kernels import (
    BOX,
    INIT,
    STEPS,
    WAIT,
    alloc,
    dealloc,
    drain_tensor_memory,
    fill_tensor_memory,
    image_to_box,
    kernel,
    launch,
    random_matrix,
)


@pytest.fixture
def blackwell() -> Iterator[None]:
    with ts_gpusim.device("sm_100a"):
        yield


# tcgen05.mma

KINDS = {"f16": "f16", "bf16": "f16", "tf32": "tf32", "e4m3": "f8f6f4", "e5m2": "f8f6f4"}
TYPE_NUMBER = {"f16": 0, "bf16": 1, "tf32": 2, "e4m3": 0, "e5m2": 1}
COLUMNS = 128  # of tensor memory that a test fills and reads
A_COLUMN = 64  # of an A in tensor memory


@dataclass(frozen=True)
class Mma:
    """An M x N product; D begins at column 0."""

    m: int
    n: int
    a_type: str
    b_type: str
    group: int = 1
    a_swizzle: int = 128
    b_swizzle: int = 128
    a_mn_major: bool = False
    b_mn_major: bool = False
    a_in_tensor_memory: bool = False
    half_d: bool = False
    negated: bool = False
    accumulates: bool = False
    disabled: tuple[int, ...] = field(default=())  # words of lanes

    @property
    def rows(self) -> int:
        return self.m // self.group

    @property
    def halves(self) -> int:
        """Of D's columns, of which the second is 64 lanes below the first."""
        return 2 if self.group == 2 and self.m == 128 else 1

    def lanes(self, half: int) -> np.ndarray:
        rows = np.arange(self.rows)
        if self.group == 1 and self.m == 64:
            return rows // 16 * 32 + rows % 16
        return rows + 64 * half

    def description(self) -> int:
        return (
            (0 if self.half_d else 1) << 4
            | TYPE_NUMBER[self.a_type] << 7
            | TYPE_NUMBER[self.b_type] << 10
            | self.negated << 13
            | self.a_mn_major << 15
            | self.b_mn_major << 16
            | self.n >> 3 << 17
            | self.m >> 4 << 24
        )

    def ptx(self, size: int) -> str:
        kind = f"cta_group::{self.group}.kind::{KINDS[self.a_type]}"
        mask = ""
        if self.disabled:
            mask = "{" + ", ".join(str(word) for word in self.disabled) + "}, "
        steps = ""
        for step in range(STEPS):
            a = "%a"
            steps += f"    ld.param.u64 %b, [descriptions+{16 * step + 8}];\n"
            if self.a_in_tensor_memory:
                a = "[%i]"
                steps += f"    add.u32 %i, %tmem, {A_COLUMN + 8 * step};\n"
            else:
                steps += f"    ld.param.u64 %a, [descriptions+{16 * step}];\n"
            value = 1 if step or self.accumulates else 0
            steps += f"    setp.ne.u32 %enable, {value}, %zero;\n"
            steps += f"    @%done tcgen05.mma.{kind} [%tmem], {a}, %b, %idesc, {mask}%enable;\n"
        commit = "tcgen05.commit.cta_group::1.mbarrier::arrive::one.b64 [%bar]"
        if self.group == 2:
            commit = (
                "tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster"
                ".multicast::cluster.b64 [%bar], %mask"
            )
        return kernel(
            ".param .u64 in, .param .u64 init, .param .u64 out, .param .u32 idesc, "
            ".param .align 8 .b8 descriptions[32]",
            size,
            f"""{image_to_box(size)}{alloc(group=self.group)}{fill_tensor_memory(COLUMNS)}{INIT}
    tcgen05.fence::after_thread_sync;
    ld.param.u32 %idesc, [idesc];
    mov.u16 %mask, 3;
    mov.u32 %zero, 0;
    setp.eq.and.u32 %done, %rank, 0, %first;
{steps}
    @%done {commit};
{WAIT}{drain_tensor_memory(COLUMNS)}{dealloc(group=self.group)}""",
        )


def run_mma(mma: Mma) -> None:
    """Compare all of tensor memory with what the product leaves there."""
    a, b = random_matrix(mma.m, mma.a_type, 1), random_matrix(mma.n, mma.b_type, 2)
    part = mma.n // mma.group
    images, first = [], []
    for cta in range(mma.group):
        own_a = operand(
            a.bits[cta * mma.rows : (cta + 1) * mma.rows], mma.a_swizzle, mma.a_mn_major
        )
        own_b = operand(b.bits[cta * part : (cta + 1) * part], mma.b_swizzle, mma.b_mn_major)
        images.append(np.concatenate([own_a.image, own_b.image]))
        first.append((own_a, own_b))
    own_a, own_b = first[0]
    descriptions = b"".join(
        struct.pack("<QQ", own_a.tcgen05(i, BOX), own_b.tcgen05(i, BOX + own_a.image.size))
        for i in range(STEPS)
    )
    shape = (mma.group, 128, COLUMNS)
    init = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    columns = mma.n // mma.halves
    a_words = a.bits.view(np.float32)
    if mma.a_in_tensor_memory:
        for cta in range(mma.group):
            for half in range(mma.halves):
                init[cta, mma.lanes(half), A_COLUMN : A_COLUMN + 8 * STEPS] = a_words[
                    cta * mma.rows : (cta + 1) * mma.rows
                ]
    product = a.values @ b.values.T * (-1 if mma.negated else 1)
    expected = init.copy()
    for cta in range(mma.group):
        for half in range(mma.halves):
            block = product[
                cta * mma.rows : (cta + 1) * mma.rows, half * columns : (half + 1) * columns
            ]
            for lane, row in zip(mma.lanes(half), block, strict=True):
                words = mma.disabled[4 * cta : 4 * cta + 4] or (0, 0, 0, 0)
                if words[lane // 32] >> (lane % 32) & 1:
                    continue
                d = expected[cta, lane, :columns]
                if mma.half_d:
                    d.view(np.uint32)[:] = row.astype(np.float16).view(np.uint16)
                else:
                    d[:] = row + (d if mma.accumulates else 0)
    out = np.zeros(shape, np.float32)
    stored = np.stack(images)
    launch(
        mma.ptx(stored.shape[1]),
        [stored, init, out, mma.description(), descriptions],
        ctas=mma.group,
    )
    if mma.half_d:
        found, wanted = (x[..., :columns].view(np.uint32) for x in (out, expected))
        assert (found >> 16 == wanted >> 16).all()
        found, wanted = ((x & 0xFFFF).astype(np.uint16).view(np.float16) for x in (found, wanted))
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=4e-3)
        return
    np.testing.assert_array_equal(out[..., columns:], init[..., columns:])
    np.testing.assert_allclose(out[..., :columns], expected[..., :columns], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("a_type", "b_type"),
    [
        ("f16", "f16"),
        ("bf16", "bf16"),
        ("tf32", "tf32"),
        ("e4m3", "e4m3"),
        ("e5m2", "e5m2"),
        ("e4m3", "e5m2"),
    ],
)
@pytest.mark.parametrize(("group", "m"), [(1, 64), (1, 128), (2, 128), (2, 256)])
def test_an_mma_multiplies_every_type_in_every_shape(a_type, b_type, group, m, blackwell):
    run_mma(Mma(m, 64, a_type, b_type, group=group))


@pytest.mark.parametrize("swizzle", [16, 32, 64, 128])
@pytest.mark.parametrize("a_mn_major", [False, True])
@pytest.mark.parametrize("b_mn_major", [False, True])
@pytest.mark.parametrize("type_", ["bf16", "e4m3"])
def test_an_mma_reads_every_layout(swizzle, a_mn_major, b_mn_major, type_, blackwell):
    n = 64 if type_ == "bf16" else 128  # a line of a swizzled MN-major B has up to 128 bytes
    layout = {"a_swizzle": swizzle, "a_mn_major": a_mn_major, "b_mn_major": b_mn_major}
    run_mma(Mma(128, n, type_, type_, b_swizzle=swizzle, **layout))


@pytest.mark.parametrize("type_", ["f16", "tf32", "e4m3"])
@pytest.mark.parametrize(("group", "m"), [(1, 64), (1, 128), (2, 128), (2, 256)])
def test_an_mma_takes_a_from_tensor_memory(type_, group, m, blackwell):
    run_mma(Mma(m, 64, type_, type_, group=group, a_in_tensor_memory=True))


@pytest.mark.parametrize("group", [1, 2])
def test_an_mma_leaves_disabled_lanes(group, blackwell):
    words = (0x0000FFFF, 0xF0F0F0F0, 0, 0xFFFFFFFF, 1, 2, 3, 4)
    run_mma(Mma(128 * group, 64, "f16", "f16", group=group, disabled=words[: 4 * group]))


@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("negated", [False, True])
def test_an_mma_accumulates_and_negates(accumulates, negated, blackwell):
    run_mma(Mma(128, 32, "bf16", "bf16", accumulates=accumulates, negated=negated))


def test_an_mma_may_leave_halves(blackwell):
    run_mma(Mma(128, 64, "f16", "f16", half_d=True))
