# SPDX-License-Identifier: MIT
"""wgmma, tcgen05.mma and tensor memory on the software GPU against numpy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import ts_gpusim
from gpusim_operands import STEP, operand
from ts_gpusim.faults import Fault

THREADS = 128
STEPS = 2  # along K
BOX = 1024  # where the kernels' first variable of shared memory begins in a CTA

TYPES = {
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "tf32": torch.float32,
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
}
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


@pytest.fixture
def blackwell() -> Iterator[None]:
    with ts_gpusim.device("sm_100a"):
        yield


@pytest.fixture
def hopper() -> Iterator[None]:
    with ts_gpusim.device("sm_90a"):
        yield


@dataclass(frozen=True)
class Matrix:
    bits: np.ndarray  # [rows, k], unsigned
    values: np.ndarray  # as the tensor core takes them, float64


def random_matrix(rows: int, type_: str, seed: int, steps: int = STEPS) -> Matrix:
    if type_ in ("s8", "u8"):
        integers = np.random.default_rng(seed).integers(0, 256, (rows, steps * STEP), np.uint8)
        return Matrix(integers, integers.view(np.int8 if type_ == "s8" else np.uint8).astype(float))
    dtype = TYPES[type_]
    shape = (rows, steps * STEP // dtype.itemsize)
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    bits = numbers.view(BITS[dtype.itemsize]).numpy().view(f"u{dtype.itemsize}")
    values = numbers.double().numpy()
    if type_ == "tf32":  # the low 13 bits are not read
        values = (bits & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    return Matrix(bits, values)


# Pieces of kernels of four warps

HEADER = ".version 8.8\n.target {arch}\n.address_size 64\n"
REGISTERS = """
    .reg .pred %first, %warp0, %done, %more, %enable;
    .reg .b16 %mask;
    .reg .b32 %tid, %warp, %at, %box, %bar, %i, %value, %rank, %tmem, %slot, %idesc, %lanes, %zero;
    .reg .b64 %in, %init, %out, %address, %a, %b;
    .reg .b32 %r<256>;
    mov.u32 %tid, %tid.x;
    shr.u32 %warp, %tid, 5;
    setp.eq.u32 %first, %tid, 0;
    setp.eq.u32 %warp0, %warp, 0;
    mov.u32 %box, box;
    mov.u32 %bar, bar;
    mov.u32 %slot, slot;
    mov.u32 %rank, %cluster_ctarank;
    shl.b32 %lanes, %warp, 21;
"""
SHARED = """
    .shared .align 1024 .b8 box[{size}];
    .shared .align 8 .b64 bar;
    .shared .align 4 .b32 slot;
"""
INIT = """
    @%first mbarrier.init.shared.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
"""
WAIT = """
WAIT:
    mbarrier.try_wait.parity.shared.b64 %done, [%bar], 0;
    @!%done bra WAIT;
"""


def own_part(name: str, size: int) -> str:
    return f"""
    ld.param.u64 %{name}, [{name}];
    mad.wide.u32 %{name}, %rank, {size}, %{name};
"""


def image_to_box(size: int) -> str:
    return f"""{own_part("in", size)}
    shl.b32 %at, %tid, 2;
IMAGE:
    cvt.u64.u32 %address, %at;
    add.u64 %address, %address, %in;
    ld.global.u32 %value, [%address];
    add.u32 %i, %box, %at;
    st.shared.u32 [%i], %value;
    add.u32 %at, %at, {4 * THREADS};
    setp.lt.u32 %more, %at, {size};
    @%more bra IMAGE;
"""


def registers(count: int, first: int = 0) -> str:
    return "{" + ", ".join(f"%r{first + i}" for i in range(count)) + "}"


def thread_words(name: str, count: int, action: str, first: int = 0) -> str:
    """`count` words of a thread, in `name`: [ctas, threads, count]."""
    code = f"    mad.wide.u32 %address, %tid, {4 * count}, %{name};\n"
    for i in range(count):
        place = f"[%address+{4 * i}]"
        operands = f"%r{first + i}, {place}" if action == "ld" else f"{place}, %r{first + i}"
        code += f"    {action}.global.u32 {operands};\n"
    return code


def alloc(columns: int = 512, group: int = 1) -> str:
    return f"""
    @%warp0 tcgen05.alloc.cta_group::{group}.sync.aligned.shared::cta.b32 [%slot], {columns};
    bar.sync 0;
    ld.shared.u32 %tmem, [%slot];
"""


def dealloc(columns: int = 512, group: int = 1) -> str:
    return f"""
    tcgen05.fence::before_thread_sync;
    bar.sync 0;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    @%warp0 tcgen05.dealloc.cta_group::{group}.sync.aligned.b32 %tmem, {columns};
"""


def fill_tensor_memory(columns: int) -> str:
    """From `init`: [ctas, 128, columns]."""
    return f"""{own_part("init", 4 * THREADS * columns)}{thread_words("init", columns, "ld")}
    add.u32 %i, %tmem, %lanes;
    tcgen05.st.sync.aligned.32x32b.x{columns}.b32 [%i], {registers(columns)};
    tcgen05.wait::st.sync.aligned;
    tcgen05.fence::before_thread_sync;
    bar.sync 0;
    tcgen05.fence::after_thread_sync;
"""


def drain_tensor_memory(columns: int) -> str:
    """To `out`: [ctas, 128, columns]."""
    return f"""{own_part("out", 4 * THREADS * columns)}
    tcgen05.fence::after_thread_sync;
    add.u32 %i, %tmem, %lanes;
    tcgen05.ld.sync.aligned.32x32b.x{columns}.b32 {registers(columns)}, [%i];
    tcgen05.wait::ld.sync.aligned;
{thread_words("out", columns, "st")}"""


def kernel(parameters: str, size: int, code: str, arch: str = "sm_100a") -> str:
    return f"""{HEADER.format(arch=arch)}
.visible .entry kernel({parameters}) {{
{SHARED.format(size=size)}{REGISTERS}{code}
    ret;
}}
"""


def launch(ptx: str, arguments: list[object], ctas: int = 1) -> None:
    shape = (ctas, 1, 1)
    ts_gpusim.launch_ptx(ptx, "kernel", shape, (THREADS, 1, 1), arguments, cluster=shape)


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


# tcgen05.ld, tcgen05.st

# Where a register of a thread is: (lanes, columns) of one thread more, by the bits of its number,
# and of one register more. CuTe DSL's layouts of the copy atoms say the same.
SHAPES = {
    "32x32b": (((1, 0), (2, 0), (4, 0), (8, 0), (16, 0)), ()),
    "16x64b": (((8, 0), (0, 1), (1, 0), (2, 0), (4, 0)), ()),
    "16x128b": (((0, 1), (0, 2), (1, 0), (2, 0), (4, 0)), ((8, 0),)),
    "16x256b": (((0, 2), (0, 4), (1, 0), (2, 0), (4, 0)), ((0, 1), (8, 0))),
    "16x32bx2": (((1, 0), (2, 0), (4, 0), (8, 0), (0, 32)), ()),
}
REPEAT_COLUMNS = {"32x32b": 1, "16x64b": 2, "16x128b": 4, "16x256b": 8, "16x32bx2": 1}
SPLIT = 32  # columns from the first half of 16x32bx2 to the second


def places(shape: str, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Lanes and columns: [32 threads, registers]."""
    threads, within = SHAPES[shape]
    lanes, columns = np.zeros((2, 32, repeats << len(within)), int)
    for thread, register in np.ndindex(*lanes.shape):
        steps = [step for i, step in enumerate(threads) if thread >> i & 1]
        steps += [step for i, step in enumerate(within) if register >> i & 1]
        repeat = register >> len(within)
        lanes[thread, register] = sum(step[0] for step in steps)
        columns[thread, register] = sum(step[1] for step in steps) + repeat * REPEAT_COLUMNS[shape]
    return lanes, columns


CASES = [
    *[("32x32b", n, 0) for n in (1, 2, 8, 64)],
    *[("16x64b", n, half) for n in (1, 2, 32) for half in (0, 16)],
    *[("16x128b", n, half) for n in (1, 2, 16) for half in (0, 16)],
    *[("16x256b", n, half) for n in (1, 2, 8) for half in (0, 16)],
    *[("16x32bx2", n, half) for n in (1, 2, 32) for half in (0, 16)],
]


@pytest.mark.parametrize(("shape", "repeats", "half"), CASES)
def test_tcgen05_ld_brings_every_register_its_word(shape, repeats, half, blackwell):
    lanes, columns = places(shape, repeats)
    count = lanes.shape[1]
    split = f", {SPLIT}" if shape == "16x32bx2" else ""
    code = f"""{alloc()}{fill_tensor_memory(COLUMNS)}{own_part("out", 4 * THREADS * count)}
    add.u32 %i, %tmem, %lanes;
    tcgen05.ld.sync.aligned.{shape}.x{repeats}.b32 {registers(count)}, [%i+{half << 16}]{split};
    tcgen05.wait::ld.sync.aligned;
{thread_words("out", count, "st")}{dealloc()}"""
    init = np.random.default_rng(0).integers(0, 2**32, (128, COLUMNS), np.uint32)
    out = np.zeros((4, 32, count), np.uint32)
    launch(kernel(".param .u64 init, .param .u64 out", 16, code), [init, out])
    for warp in range(4):
        np.testing.assert_array_equal(out[warp], init[32 * warp + half + lanes, columns])


@pytest.mark.parametrize(("shape", "repeats", "half"), CASES)
def test_tcgen05_st_puts_every_register_in_its_word(shape, repeats, half, blackwell):
    lanes, columns = places(shape, repeats)
    count = lanes.shape[1]
    split = f", {SPLIT}" if shape == "16x32bx2" else ""
    code = f"""{alloc()}{fill_tensor_memory(COLUMNS)}{own_part("in", 4 * THREADS * count)}
{thread_words("in", count, "ld")}
    add.u32 %i, %tmem, %lanes;
    tcgen05.st.sync.aligned.{shape}.x{repeats}.b32 [%i+{half << 16}]{split}, {registers(count)};
    tcgen05.wait::st.sync.aligned;
{drain_tensor_memory(COLUMNS)}{dealloc()}"""
    random = np.random.default_rng(0)
    init = random.integers(0, 2**32, (128, COLUMNS), np.uint32)
    given = random.integers(0, 2**32, (4, 32, count), np.uint32)
    out, expected = np.zeros_like(init), init.copy()
    for warp in range(4):
        expected[32 * warp + half + lanes, columns] = given[warp]
    ptx = kernel(".param .u64 in, .param .u64 init, .param .u64 out", 16, code)
    launch(ptx, [given, init, out])
    np.testing.assert_array_equal(out, expected)


def test_a_warp_reads_only_its_quarter_of_the_lanes(blackwell):
    code = f"""{alloc()}
    tcgen05.ld.sync.aligned.32x32b.x1.b32 {{%r0}}, [%tmem];
{dealloc()}"""
    with pytest.raises(Fault, match=r"warp [1-3] accesses tensor memory from lane 0, but its"):
        launch(kernel(".param .u64 out", 16, code), [0])


# tcgen05.cp

COPIES = {
    # rows, bytes of one, the row that lands in the first lane of each quarter
    "128x256b": (128, 32, (0, 32, 64, 96)),
    "128x128b": (128, 16, (0, 32, 64, 96)),
    "64x128b.warpx2::02_13": (64, 16, (0, 32, 0, 32)),
    "64x128b.warpx2::01_23": (64, 16, (0, 0, 32, 32)),
    "32x128b.warpx4": (32, 16, (0, 0, 0, 0)),
}


@pytest.mark.parametrize("shape", COPIES)
@pytest.mark.parametrize("group", [1, 2])
def test_tcgen05_cp_brings_rows_to_lanes(shape, group, blackwell):
    rows, size, quarters = COPIES[shape]
    random = np.random.default_rng(0)
    given = random.integers(0, 256, (group, rows, 32), np.uint8)
    operands = [operand(part, 16, mn_major=False) for part in given]
    stored = np.stack([part.image for part in operands])
    init = random.integers(0, 2**32, (group, 128, COLUMNS), np.uint32)
    out, expected = np.zeros_like(init), init.copy()
    for quarter, first in enumerate(quarters):
        rows_ = given[:, first : first + 32, :size].copy().view(np.uint32)
        expected[:, 32 * quarter : 32 * quarter + 32, 8 : 8 + size // 4] = rows_
    commit = f"tcgen05.commit.cta_group::{group}.mbarrier::arrive::one.shared::cluster"
    prepare = image_to_box(stored.shape[1]) + alloc(group=group) + fill_tensor_memory(COLUMNS)
    code = f"""{prepare}{INIT}
    tcgen05.fence::after_thread_sync;
    mov.u16 %mask, {group + group // 2};
    ld.param.u64 %a, [description];
    setp.eq.and.u32 %done, %rank, 0, %first;
    @%done tcgen05.cp.cta_group::{group}.{shape} [%tmem+8], %a;
    @%done {commit}.multicast::cluster.b64 [%bar], %mask;
{WAIT}{drain_tensor_memory(COLUMNS)}{dealloc(group=group)}"""
    parameters = ".param .u64 in, .param .u64 init, .param .u64 out, .param .u64 description"
    arguments = [stored, init, out, operands[0].tcgen05(0, BOX)]
    launch(kernel(parameters, stored.shape[1], code), arguments, ctas=group)
    np.testing.assert_array_equal(out, expected)


# Allocation

DROP = "    @%warp0 tcgen05.dealloc.cta_group::1.sync.aligned.b32 %tmem, {};\n"
LOAD = """
    add.u32 %i, %tmem, %lanes;
    tcgen05.ld.sync.aligned.32x32b.x1.b32 {%r0}, [%i+@];
"""
FAULTS = {
    "a leak": (alloc(64), "ends with 64 columns of tensor memory not freed"),
    "a double free": (
        alloc(64) + 2 * DROP.format(64),
        "64 columns of tensor memory from 0 are freed, but no allocation is that",
    ),
    "a free of a part": (
        alloc(64) + DROP.format(32),
        "32 columns of tensor memory from 0 are freed, but no allocation is that",
    ),
    "a use after free": (
        alloc(64) + DROP.format(64) + "    bar.sync 0;\n" + LOAD.replace("@", "0"),
        "columns 0 to 0 of tensor memory are used, but not all are allocated",
    ),
    "a use past the end": (
        alloc(64) + LOAD.replace("@", "64"),
        "columns 64 to 64 of tensor memory are used, but not all are allocated",
    ),
    "too many columns": (alloc(1024), "1024 columns of tensor memory are asked for"),
    "an odd number of columns": (alloc(48), "48 columns of tensor memory are asked for"),
    "an allocation after the permit": (
        "    @%warp0 tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;\n" + alloc(32),
        "has relinquished its permit allocates",
    ),
    "two allocations that do not fit": (
        alloc(512) + alloc(32),
        "waits for 32 columns of tensor memory",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_misuse_of_tensor_memory_is_a_fault(name, blackwell):
    code, sentence = FAULTS[name]
    with pytest.raises(Fault, match=sentence):
        launch(kernel(".param .u64 out", 16, code), [0])


# wgmma

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
