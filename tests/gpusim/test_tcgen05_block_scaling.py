# SPDX-License-Identifier: MIT
"""Block-scaled tcgen05.mma, and that of narrow elements, on the software GPU against numpy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import gpusim_narrow_types as narrow
import numpy as np
import pytest
import ts_gpusim
from gpusim_operands import Operand, operand
from gpusim_tensor_kernels import (
    BOX,
    INIT,
    WAIT,
    alloc,
    dealloc,
    drain_tensor_memory,
    fill_tensor_memory,
    image_to_box,
    kernel,
    launch,
)
from ts_gpusim.faults import Fault
from ts_gpusim.ptx.errors import PtxError

COLUMNS = 128  # of tensor memory that a test fills and reads; D begins at column 0
A_COLUMN, A_SCALES, B_SCALES = 64, 80, 96
TYPES = ("e4m3", "e5m2", "e2m3", "e3m2", "e2m1")
TYPE_NUMBER = {"e4m3": 0, "e5m2": 1, "e2m3": 3, "e3m2": 4, "e2m1": 5}


@pytest.fixture
def blackwell() -> Iterator[None]:
    with ts_gpusim.device("sm_100a"):
        yield


@pytest.fixture
def blackwell_ultra() -> Iterator[None]:
    with ts_gpusim.device("sm_103a"):
        yield


@dataclass(frozen=True)
class Mma:
    """`ids`: the first byte of A's and of B's scale factors in a word."""

    kind: str
    size: str = ""
    a_type: str = "e2m1"
    b_type: str = "e2m1"
    scale_type: str = "ue8m0"
    m: int = 128
    n: int = 64
    group: int = 1
    ids: tuple[int, int] = (0, 0)
    long_k: bool = False
    swizzle: int = 128
    a_in_tensor_memory: bool = False
    negated: bool = False

    @property
    def pairs(self) -> bool:
        return self.kind in ("mxf4", "mxf4nvf4")

    @property
    def k(self) -> int:
        return (96 if self.long_k else 64) if self.pairs else 32

    @property
    def blocks(self) -> int:
        if self.kind == "f8f6f4":
            return 1
        return self.k // (16 if self.size in ("block16", "scale_vec::4X") else 32)

    def description(self) -> int:
        types = (1, 1) if self.pairs else (TYPE_NUMBER[self.a_type], TYPE_NUMBER[self.b_type])
        bits = types[0] << 7 | types[1] << 10 | self.negated << 13 | self.n >> 3 << 17
        if self.kind == "f8f6f4":
            return bits | 1 << 4 | self.m >> 4 << 24
        bits |= self.ids[1] << 4 | (self.scale_type == "ue8m0") << 23 | self.m >> 7 << 27
        return bits | self.ids[0] << 29 | self.long_k << 31

    def lay_out(self, codes: np.ndarray, type_: str) -> Operand:
        rows = narrow.packed(codes, type_) if self.pairs else narrow.padded(codes, type_)
        if rows.shape[1] % self.swizzle:  # so that a row ends with its line
            rows = np.pad(rows, ((0, 0), (0, self.swizzle - rows.shape[1] % self.swizzle)))
        return operand(rows, self.swizzle, mn_major=False)

    def ptx(self, size: int) -> str:
        scaled = self.kind != "f8f6f4"
        name = f"tcgen05.mma.cta_group::{self.group}.kind::{self.kind}"
        name += ".block_scale" * scaled + f".{self.size}" * bool(self.size)
        a = f"[%tmem+{A_COLUMN}]" if self.a_in_tensor_memory else "%a"
        scales = f"[%tmem+{A_SCALES}], [%tmem+{B_SCALES}], " * scaled
        commit = f"tcgen05.commit.cta_group::{self.group}.mbarrier::arrive::one.shared::cluster"
        prepare = image_to_box(size) + alloc(group=self.group) + fill_tensor_memory(COLUMNS)
        code = f"""{prepare}{INIT}
    tcgen05.fence::after_thread_sync;
    ld.param.u32 %idesc, [idesc];
    ld.param.u64 %a, [a];
    ld.param.u64 %b, [b];
    mov.u16 %mask, {self.group * 2 - 1};
    mov.u32 %zero, 0;
    setp.eq.and.u32 %done, %rank, 0, %first;
    setp.ne.u32 %enable, 1, %zero;
    @%done {name} [%tmem], {a}, %b, %idesc, {scales}%enable;
    @%done {commit}.multicast::cluster.b64 [%bar], %mask;
{WAIT}{drain_tensor_memory(COLUMNS)}{dealloc(group=self.group)}"""
        parameters = ".param .u64 in, .param .u64 init, .param .u64 out, .param .u32 idesc"
        arch = "sm_103a" if self.long_k else "sm_100a"
        return kernel(f"{parameters}, .param .u64 a, .param .u64 b", size, code, arch)


def random_scales(rows: int, mma: Mma, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and values: [rows, blocks]."""
    random = np.random.default_rng(seed)
    shape = (rows, mma.blocks)
    if mma.scale_type == "ue8m0":
        codes = random.integers(120, 134, shape, np.uint8)
        return codes, 2.0 ** (codes.astype(float) - 127)
    codes = random.integers(0x20, 0x58, shape, np.uint8)
    return codes, narrow.values(codes, "e4m3")


def put_scales(memory: np.ndarray, column: int, first: int, codes: np.ndarray, quarters: slice):
    """PTX ISA 9.7.16.10.7.2 and .3: a row's factors from byte `first` of its word on.

    `memory`: [128, COLUMNS] words. What does not fit goes on behind the words of all rows, which
    have four columns for each 128. `quarters` of the lanes have the same.
    """
    rows, blocks = codes.shape
    bytes_ = memory.view(np.uint8).reshape(4, 32, COLUMNS, 4)
    words = -(-rows // 128) * 4
    for row, block in np.ndindex(rows, blocks):
        word, byte = divmod(first + block, 4)
        bytes_[quarters, row % 32, column + row // 32 + word * words, byte] = codes[row, block]


def run_mma(mma: Mma) -> None:
    """Compare all of tensor memory with what the product leaves there."""
    rows, part = mma.m // mma.group, mma.n // mma.group
    a = narrow.random_codes((mma.m, mma.k), mma.a_type, 1)
    b = narrow.random_codes((mma.n, mma.k), mma.b_type, 2)
    a_codes, a_scales = random_scales(mma.m, mma, 3)
    b_codes, b_scales = random_scales(mma.n, mma, 4)
    init = np.random.default_rng(5).integers(0, 2**32, (mma.group, 128, COLUMNS), np.uint32)
    init[..., :64] = np.random.default_rng(6).standard_normal(
        (mma.group, 128, 64)
    ).astype(np.float32).view(np.uint32)  # fmt: skip
    halves = 2 if mma.group == 2 and mma.m == 128 else 1
    columns = mma.n // halves
    images = []
    for cta in range(mma.group):
        own = slice(cta * rows, (cta + 1) * rows)
        own_a = mma.lay_out(a[own], mma.a_type)
        own_b = mma.lay_out(b[cta * part : (cta + 1) * part], mma.b_type)
        images.append(np.concatenate([own_a.image, own_b.image]))
        put_scales(init[cta], A_SCALES, mma.ids[0], a_codes[own], slice(None))
        for half in range(halves):
            codes = b_codes[half * columns : (half + 1) * columns]
            quarters = slice(None) if halves == 1 else slice(2 * half, 2 * half + 2)
            put_scales(init[cta], B_SCALES, mma.ids[1], codes, quarters)
        if mma.a_in_tensor_memory:
            bytes_ = narrow.packed(a[own], "e2m1") if mma.pairs else a[own]
            if mma.a_type == "e2m1" and not mma.pairs:
                bytes_ = bytes_ << 2  # PTX ISA 9.7.16.10.4.3
            words = np.ascontiguousarray(bytes_).view(np.uint32)
            for half in range(halves):
                lanes = slice(half * rows, half * rows + rows)
                init[cta, lanes, A_COLUMN : A_COLUMN + words.shape[1]] = words
    if mma.kind == "f8f6f4":
        a_scales, b_scales = np.ones_like(a_scales), np.ones_like(b_scales)
    block = mma.k // mma.blocks
    product = (narrow.values(a, mma.a_type) * a_scales.repeat(block, 1)) @ (
        narrow.values(b, mma.b_type) * b_scales.repeat(block, 1)
    ).T  # fmt: skip
    product *= -1 if mma.negated else 1
    expected = init[..., :64].view(np.float32).astype(np.float64)
    for cta, half in np.ndindex(mma.group, halves):
        lanes = slice(half * rows, half * rows + rows)
        part_of_d = product[cta * rows : (cta + 1) * rows, half * columns : (half + 1) * columns]
        expected[cta, lanes, :columns] += part_of_d
    out = np.zeros_like(init)
    stored = np.stack(images)
    arguments = [stored, init, out, mma.description()]
    arguments += [own_a.tcgen05(0, BOX), own_b.tcgen05(0, BOX + own_a.image.size)]
    launch(mma.ptx(stored.shape[1]), arguments, ctas=mma.group)
    np.testing.assert_array_equal(out[..., 64:], init[..., 64:])
    found, wanted = out[..., :64].view(np.float32), expected
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


SHAPES = [(1, 128), (2, 128), (2, 256)]


@pytest.mark.parametrize(("group", "m"), SHAPES)
@pytest.mark.parametrize("a_type", TYPES)
@pytest.mark.parametrize("b_type", ["e4m3", "e3m2", "e2m1"])
def test_kind_mxf8f6f4_multiplies_every_type(a_type, b_type, group, m, blackwell):
    run_mma(Mma("mxf8f6f4", "", a_type, b_type, m=m, group=group))


@pytest.mark.parametrize("ids", [(0, 3), (1, 2), (2, 1), (3, 0)])
@pytest.mark.parametrize("size", ["block32", "scale_vec::1X"])
def test_kind_mxf8f6f4_takes_any_byte_as_scale_factor(size, ids, blackwell):
    run_mma(Mma("mxf8f6f4", size, "e4m3", "e5m2", ids=ids))


FOUR_BITS = [
    ("mxf4", "", "ue8m0"),
    ("mxf4", "block32", "ue8m0"),
    ("mxf4", "scale_vec::2X", "ue8m0"),
    ("mxf4nvf4", "scale_vec::2X", "ue8m0"),
    ("mxf4nvf4", "scale_vec::4X", "ue8m0"),
    ("mxf4nvf4", "scale_vec::4X", "ue4m3"),
    ("mxf4nvf4", "block16", "ue4m3"),
]


@pytest.mark.parametrize(("group", "m"), SHAPES)
@pytest.mark.parametrize(("kind", "size", "scale_type"), FOUR_BITS)
def test_packed_elements_have_two_or_four_scale_factors(
    kind, size, scale_type, group, m, blackwell
):
    run_mma(Mma(kind, size, scale_type=scale_type, m=m, group=group))


@pytest.mark.parametrize("ids", [(0, 2), (2, 0)])
def test_two_scale_factors_are_either_half_of_a_word(ids, blackwell):
    run_mma(Mma("mxf4", ids=ids))


@pytest.mark.parametrize("n", [8, 16, 40])
def test_b_may_have_few_rows(n, blackwell):
    run_mma(Mma("mxf4nvf4", "block16", scale_type="ue4m3", n=n))


@pytest.mark.parametrize("ids", [(0, 0), (1, 3), (2, 2)])
def test_k_may_be_96_in_blocks_of_32(ids, blackwell_ultra):
    run_mma(Mma("mxf4", "block32", ids=ids, long_k=True))


@pytest.mark.parametrize("ids", [(0, 2), (2, 0)])
@pytest.mark.parametrize("group", [1, 2])
def test_k_may_be_96_in_blocks_of_16(ids, group, blackwell_ultra):
    mma = Mma("mxf4nvf4", "block16", scale_type="ue4m3", ids=ids, long_k=True)
    run_mma(replace(mma, group=group, m=128 * group))


@pytest.mark.parametrize("swizzle", [16, 32, 64])
@pytest.mark.parametrize("kind", ["mxf8f6f4", "mxf4"])
def test_narrow_operands_are_read_in_every_swizzle(kind, swizzle, blackwell):
    run_mma(Mma(kind, swizzle=swizzle))


@pytest.mark.parametrize(("group", "m"), SHAPES)
@pytest.mark.parametrize(
    ("kind", "a_type"),
    [("mxf4", "e2m1"), *[("mxf8f6f4", type_) for type_ in TYPES]],
)
def test_a_block_scaled_mma_takes_a_from_tensor_memory(kind, a_type, group, m, blackwell):
    b_type = "e2m1" if kind == "mxf4" else "e5m2"
    run_mma(Mma(kind, "", a_type, b_type, m=m, group=group, a_in_tensor_memory=True))


def test_a_block_scaled_mma_negates(blackwell):
    run_mma(Mma("mxf4", negated=True))


@pytest.mark.parametrize("a_in_tensor_memory", [False, True])
@pytest.mark.parametrize("a_type", ["e2m3", "e3m2", "e2m1"])
@pytest.mark.parametrize("b_type", ["e4m3", "e2m3", "e2m1"])
def test_kind_f8f6f4_multiplies_narrow_types(a_type, b_type, a_in_tensor_memory, blackwell):
    run_mma(Mma("f8f6f4", "", a_type, b_type, a_in_tensor_memory=a_in_tensor_memory))


def test_scale_factors_must_be_in_every_quarter_of_the_lanes(blackwell, monkeypatch):
    monkeypatch.setitem(
        globals(), "put_scales", lambda memory, column, first, codes, quarters: None
    )
    with pytest.raises(Fault, match=r"scale factor 0 of row 0 of A is 0x\w+ in quarter 0 of the"):
        run_mma(Mma("mxf4"))


WRONG = {
    "three scale factors in one": (Mma("mxf4", ids=(1, 0)), "scale factor id 1; with 2"),
    "a type that does not go with the block": (
        Mma("mxf4nvf4", "block32", scale_type="ue4m3"),
        "scale factors of a type that does not go with blocks of 32",
    ),
    "64 rows": (Mma("mxf8f6f4", m=64), "0 x 64, which that kind has not"),
    "an odd number of columns": (Mma("mxf4", n=0), "128 x 0, which that kind has not"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_descriptor_is_a_fault(name, blackwell):
    mma, sentence = WRONG[name]
    good = replace(mma, m=128, n=64)
    ptx = good.ptx(4096)
    images = np.zeros(4096, np.uint8)
    memory = np.zeros((128, COLUMNS), np.uint32)
    with pytest.raises(Fault, match=re.escape(sentence)):
        launch(ptx, [images, memory, memory.copy(), mma.description(), 1 << 46, 1 << 46])


def test_a_kind_that_needs_a_block_is_refused_without_one(blackwell):
    with pytest.raises(PtxError, match=r"goes with .block32 or .scale_vec::2X or .block16 or"):
        run_mma(Mma("mxf4nvf4"))
