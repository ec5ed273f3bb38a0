# SPDX-License-Identifier: MIT
"""Tensor memory on the software GPU: tcgen05.ld, st, cp, shift and allocation against numpy."""

from __future__ import annotations

from collections.abc import Iterator

import gpusim_narrow_types as narrow
import numpy as np
import pytest
import ts_gpusim
from gpusim_operands import operand
from gpusim_tensor_kernels import (
    BOX,
    INIT,
    THREADS,
    WAIT,
    alloc,
    dealloc,
    drain_tensor_memory,
    fill_tensor_memory,
    image_to_box,
    kernel,
    launch,
    own_part,
    registers,
    thread_words,
)
from ts_gpusim.faults import Fault

COLUMNS = 128  # of tensor memory that a test fills and reads


@pytest.fixture
def blackwell() -> Iterator[None]:
    with ts_gpusim.device("sm_100a"):
        yield


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


def packed_places(shape: str, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the first of the two words of a register."""
    lanes, columns = places(shape, repeats)
    if shape != "16x32bx2":
        return lanes, 2 * columns
    upper = np.arange(32)[:, None] // 16 * SPLIT
    return lanes, 2 * (columns - upper) + upper


@pytest.mark.parametrize(
    ("shape", "repeats"),
    [("32x32b", 4), ("16x64b", 2), ("16x128b", 2), ("16x256b", 2), ("16x32bx2", 8)],
)
def test_tcgen05_ld_packs_the_low_halves_of_two_words(shape, repeats, blackwell):
    lanes, columns = packed_places(shape, repeats)
    count = lanes.shape[1]
    split = f", {SPLIT}" if shape == "16x32bx2" else ""
    code = f"""{alloc()}{fill_tensor_memory(COLUMNS)}{own_part("out", 4 * THREADS * count)}
    add.u32 %i, %tmem, %lanes;
    tcgen05.ld.sync.aligned.{shape}.x{repeats}.pack::16b.b32 {registers(count)}, [%i]{split};
    tcgen05.wait::ld.sync.aligned;
{thread_words("out", count, "st")}{dealloc()}"""
    init = np.random.default_rng(0).integers(0, 2**32, (128, COLUMNS), np.uint32)
    out = np.zeros((4, 32, count), np.uint32)
    launch(kernel(".param .u64 init, .param .u64 out", 16, code), [init, out])
    for warp in range(4):
        own = init[32 * warp + lanes, columns], init[32 * warp + lanes, columns + 1]
        np.testing.assert_array_equal(out[warp], own[0] & 0xFFFF | own[1] << 16)


@pytest.mark.parametrize(
    ("shape", "repeats"),
    [("32x32b", 4), ("16x64b", 2), ("16x128b", 2), ("16x256b", 2), ("16x32bx2", 8)],
)
def test_tcgen05_st_unpacks_halves_to_two_words(shape, repeats, blackwell):
    lanes, columns = packed_places(shape, repeats)
    count = lanes.shape[1]
    split = f", {SPLIT}" if shape == "16x32bx2" else ""
    name = f"tcgen05.st.sync.aligned.{shape}.x{repeats}.unpack::16b.b32"
    code = f"""{alloc()}{fill_tensor_memory(COLUMNS)}{own_part("in", 4 * THREADS * count)}
{thread_words("in", count, "ld")}
    add.u32 %i, %tmem, %lanes;
    {name} [%i]{split}, {registers(count)};
    tcgen05.wait::st.sync.aligned;
{drain_tensor_memory(COLUMNS)}{dealloc()}"""
    random = np.random.default_rng(0)
    init = random.integers(0, 2**32, (128, COLUMNS), np.uint32)
    given = random.integers(0, 2**32, (4, 32, count), np.uint32)
    out, expected = np.zeros_like(init), init.copy()
    for warp in range(4):
        expected[32 * warp + lanes, columns] = given[warp] & 0xFFFF
        expected[32 * warp + lanes, columns + 1] = given[warp] >> 16
    ptx = kernel(".param .u64 in, .param .u64 init, .param .u64 out", 16, code)
    launch(ptx, [given, init, out])
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("shape", ["32x32b", "16x32bx2"])
@pytest.mark.parametrize("reduction", ["min", "max"])
@pytest.mark.parametrize("form", ["u32", "s32", "f32", "abs.f32", "NaN.f32"])
def test_tcgen05_ld_red_also_reduces_the_registers_of_a_thread(shape, reduction, form, blackwell):
    lanes, columns = places(shape, 8)
    split = f", {SPLIT}" if shape == "16x32bx2" else ""
    name = f"tcgen05.ld.red.sync.aligned.{shape}.x8.{reduction}.{form}"
    code = f"""{alloc()}{fill_tensor_memory(COLUMNS)}{own_part("out", 4 * THREADS * 9)}
    add.u32 %i, %tmem, %lanes;
    {name} {registers(8)}, %r8, [%i]{split};
    tcgen05.wait::ld.sync.aligned;
{thread_words("out", 9, "st")}{dealloc()}"""
    dtype = {"u": np.uint32, "s": np.int32}.get(form[0], np.float32)
    random = np.random.default_rng(0)
    if dtype == np.float32:
        init = random.standard_normal((128, COLUMNS)).astype(np.float32)
        init[random.random(init.shape) < 0.05] = np.nan
    else:
        init = random.integers(0, 2**32, (128, COLUMNS), np.uint32).view(dtype)
    out = np.zeros((4, 32, 9), dtype)
    launch(kernel(".param .u64 init, .param .u64 out", 16, code), [init, out])
    choose = getattr(np, f"{reduction}imum" if "NaN" in form else f"f{reduction}")
    for warp in range(4):
        loaded = init[32 * warp + lanes, columns]
        np.testing.assert_array_equal(out[warp, :, :8], loaded)
        of = np.abs(loaded) if "abs" in form else loaded
        np.testing.assert_array_equal(out[warp, :, 8], choose.reduce(of, axis=1))


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


WIDENED = {"b6x16_p32": ("e3m2", 0), "b4x16_p64": ("e2m1", 2)}  # and where the byte's low bit goes


@pytest.mark.parametrize("shape", ["128x256b", "128x128b", "32x128b.warpx4"])
@pytest.mark.parametrize("source", WIDENED)
def test_tcgen05_cp_widens_elements_to_bytes(source, shape, blackwell):
    rows, size, quarters = COPIES[shape]
    type_, low = WIDENED[source]
    codes = narrow.random_codes((rows, size), type_, 1)
    given = operand(narrow.padded(codes, type_), 16, mn_major=False)
    init = np.random.default_rng(0).integers(0, 2**32, (128, COLUMNS), np.uint32)
    out, expected = np.zeros_like(init), init.copy()
    words = np.ascontiguousarray(codes << low).view(np.uint32)
    for quarter, first in enumerate(quarters):
        expected[32 * quarter : 32 * quarter + 32, 8 : 8 + size // 4] = words[first : first + 32]
    code = f"""{image_to_box(given.image.size)}{alloc()}{fill_tensor_memory(COLUMNS)}{INIT}
    tcgen05.fence::after_thread_sync;
    ld.param.u64 %a, [description];
    @%first tcgen05.cp.cta_group::1.{shape}.b8x16.{source} [%tmem+8], %a;
    @%first tcgen05.commit.cta_group::1.mbarrier::arrive::one.b64 [%bar];
{WAIT}{drain_tensor_memory(COLUMNS)}{dealloc()}"""
    parameters = ".param .u64 in, .param .u64 init, .param .u64 out, .param .u64 description"
    arguments = [given.image, init, out, given.tcgen05(0, BOX)]
    launch(kernel(parameters, given.image.size, code), arguments)
    np.testing.assert_array_equal(out, expected)


# tcgen05.shift


@pytest.mark.parametrize("lane", [0, 64])
@pytest.mark.parametrize("group", [1, 2])
def test_tcgen05_shift_moves_the_rows_of_a_quarter_by_one(group, lane, blackwell):
    commit = f"tcgen05.commit.cta_group::{group}.mbarrier::arrive::one.shared::cluster"
    code = f"""{alloc(group=group)}{fill_tensor_memory(COLUMNS)}{INIT}
    tcgen05.fence::after_thread_sync;
    mov.u16 %mask, {group * 2 - 1};
    setp.eq.and.u32 %done, %rank, 0, %first;
    @%done tcgen05.shift.cta_group::{group}.down [%tmem+{(lane << 16) + 16}];
    @%done {commit}.multicast::cluster.b64 [%bar], %mask;
{WAIT}{drain_tensor_memory(COLUMNS)}{dealloc(group=group)}"""
    init = np.random.default_rng(0).integers(0, 2**32, (group, 128, COLUMNS), np.uint32)
    out, expected = np.zeros_like(init), init.copy()
    expected[:, lane : lane + 31, 16:24] = init[:, lane + 1 : lane + 32, 16:24]
    launch(kernel(".param .u64 init, .param .u64 out", 16, code), [init, out], ctas=group)
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
