# SPDX-License-Identifier: MIT
"""ldmatrix, stmatrix and movmatrix against numpy (PTX ISA 9.7.14.5.15 to 9.7.14.5.17)."""

from __future__ import annotations

import numpy as np
import pytest
from gpusim_kernels import compute, integers, launch, same
from ts_gpusim.faults import Fault

LANES = np.arange(32)
ROWS = np.random.default_rng(3).integers(0, 256, (32, 16), dtype="u1")  # one a lane


def load(name: str, registers: int, rows: np.ndarray = ROWS) -> np.ndarray:
    """[lane, byte of its registers]: what ldmatrix gives, lane i having named row 31 - i."""
    names = [f"%r{i}" for i in range(registers)]
    stores = "".join(f"st.global.b32 [%out+{4 * i}], {name};" for i, name in enumerate(names))
    ptx = f"""
    .visible .entry k(.param .u64 in, .param .u64 out)
    {{
        .shared .align 16 .b8 rows[512];
        .reg .b32 %t, %s, %r<{registers}>; .reg .b64 %in, %out, %d<2>;
        mov.u32 %t, %tid.x; mov.u32 %s, rows;
        ld.param.u64 %in, [in]; mad.wide.u32 %in, %t, 16, %in;
        ld.param.u64 %out, [out]; mad.wide.u32 %out, %t, {4 * registers}, %out;
        xor.b32 %t, %t, 31; mad.lo.u32 %s, %t, 16, %s;
        ld.global.v2.b64 {{%d0, %d1}}, [%in]; st.shared.v2.b64 [%s], {{%d0, %d1}};
        bar.warp.sync -1;
        {name} {{{", ".join(names)}}}, [%s];
        {stores}
        ret;
    }}"""
    out = np.zeros((32, registers), "u4")
    launch(ptx, np.ascontiguousarray(rows), out)
    return out.view("u1").reshape(32, 4 * registers)


def store(name: str, registers: np.ndarray) -> np.ndarray:
    """The 32 rows after stmatrix: lane i names row i; row 0xff where nothing was stored."""
    count = registers.shape[1]
    names = [f"%r{i}" for i in range(count)]
    loads = "".join(f"ld.global.b32 {name}, [%in+{4 * i}];" for i, name in enumerate(names))
    ptx = f"""
    .visible .entry k(.param .u64 in, .param .u64 out)
    {{
        .shared .align 16 .b8 rows[512];
        .reg .b32 %t, %s, %r<{count}>; .reg .b64 %in, %out, %d<2>;
        mov.u32 %t, %tid.x; mov.u32 %s, rows; mad.lo.u32 %s, %t, 16, %s;
        ld.param.u64 %in, [in]; mad.wide.u32 %in, %t, {4 * count}, %in;
        ld.param.u64 %out, [out]; mad.wide.u32 %out, %t, 16, %out;
        st.shared.v2.b64 [%s], {{-1, -1}};
        bar.warp.sync -1;
        {loads}
        {name} [%s], {{{", ".join(names)}}};
        bar.warp.sync -1;
        ld.shared.v2.b64 {{%d0, %d1}}, [%s]; st.global.v2.b64 [%out], {{%d0, %d1}};
        ret;
    }}"""
    out = np.zeros((32, 16), "u1")
    launch(ptx, registers, out)
    return out


def fragments(halves: np.ndarray) -> np.ndarray:
    """Of matrices [n, 8, 8] of 16 bits: [lane, n, 2]; a lane has two neighbours of a row."""
    return halves[:, LANES // 4].reshape(len(halves), 32, 4, 2)[:, LANES, LANES % 4].swapaxes(0, 1)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_8_by_8_matrices_are_loaded_by_rows_or_columns(count):
    matrices = ROWS[: 8 * count].copy().view("u2").reshape(count, 8, 8)
    plain = load(f"ldmatrix.sync.aligned.m8n8.x{count}.shared.b16", count)
    assert same(plain.view("u2").ravel(), fragments(matrices).ravel())
    across = load(f"ldmatrix.sync.aligned.m8n8.x{count}.trans.shared::cta.b16", count)
    assert same(across.view("u2").ravel(), fragments(matrices.swapaxes(1, 2)).ravel())


@pytest.mark.parametrize("count", [1, 2])
def test_16_by_16_matrices_of_bytes_are_transposed(count):
    # A register has 4 bytes of 8 rows of the transposed matrix, the next one those of the others.
    loaded = load(f"ldmatrix.sync.aligned.m16n16.x{count}.trans.shared.b8", 2 * count)
    for n in range(count):
        matrix = ROWS[16 * n : 16 * (n + 1)].T
        for half in range(2):
            quads = matrix[8 * half + LANES // 4].reshape(32, 4, 4)[LANES, LANES % 4]
            at = 8 * n + 4 * half
            assert same(loaded[:, at : at + 4].copy().ravel(), quads.ravel())


@pytest.mark.parametrize(("bits", "source"), [(4, "b4x16_p64"), (6, "b6x16_p32")])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_narrow_elements_become_the_low_bits_of_bytes(count, bits, source):
    elements = np.random.default_rng(5).integers(0, 1 << bits, (32, 16), dtype="u1")
    packed = np.zeros((32, 16), "u1")
    stream = (elements[..., None] >> np.arange(bits) & 1).reshape(32, 16 * bits)
    packed[:, : 2 * bits] = np.packbits(stream, axis=1, bitorder="little")
    name = f"ldmatrix.sync.aligned.m8n16.x{count}.shared.b8x16.{source}"
    loaded = load(name, count, packed).reshape(32, count, 4)
    quads = elements[: 8 * count].reshape(count, 8, 4, 4)[:, LANES // 4, LANES % 4]
    assert same(loaded.ravel(), quads.swapaxes(0, 1).ravel())
    if count < 4:
        name = f"ldmatrix.sync.aligned.m16n16.x{count}.trans.shared.b8x16.{source}"
        loaded = load(name, 2 * count, packed)
        for n in range(count):
            first = elements[16 * n : 16 * (n + 1)].T[LANES // 4].reshape(32, 4, 4)
            assert same(
                loaded[:, 8 * n : 8 * n + 4].copy().ravel(), first[LANES, LANES % 4].ravel()
            )


@pytest.mark.parametrize("count", [1, 2, 4])
def test_8_by_8_matrices_are_stored_by_rows_or_columns(count):
    matrices = np.random.default_rng(7).integers(0, 1 << 16, (count, 8, 8), dtype="u2")
    registers = np.ascontiguousarray(fragments(matrices)).view("u4").reshape(32, count)
    expected = np.full((32, 16), 0xFF, "u1")
    stored = store(f"stmatrix.sync.aligned.m8n8.x{count}.shared.b16", registers)
    expected[: 8 * count] = matrices.view("u1").reshape(-1, 16)
    assert same(stored.ravel(), expected.ravel())
    stored = store(f"stmatrix.sync.aligned.m8n8.x{count}.trans.shared.b16", registers)
    expected[: 8 * count] = np.ascontiguousarray(matrices.swapaxes(1, 2)).view("u1").reshape(-1, 16)
    assert same(stored.ravel(), expected.ravel())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_16_by_8_matrices_of_bytes_are_stored_by_columns(count):
    # As accumulators have them: a lane has two neighbours of row lane / 4, and of the one 8 below.
    matrices = np.random.default_rng(9).integers(0, 256, (count, 16, 8), dtype="u1")
    pairs = matrices.reshape(count, 2, 8, 4, 2)[:, :, LANES // 4, LANES % 4]
    quads = pairs.transpose(2, 0, 1, 3).reshape(32, 4 * count)
    registers = np.ascontiguousarray(quads).view("u4")
    stored = store(f"stmatrix.sync.aligned.m16n8.x{count}.trans.shared.b8", registers)
    expected = np.full((32, 16), 0xFF, "u1")
    expected[: 8 * count] = matrices.swapaxes(1, 2).reshape(-1, 16)
    assert same(stored.ravel(), expected.ravel())


def test_a_matrix_in_registers_is_transposed():
    matrix = np.random.default_rng(11).integers(0, 1 << 16, (1, 8, 8), dtype="u2")
    a = np.ascontiguousarray(fragments(matrix)).view("u4").ravel()
    d = compute("movmatrix.sync.aligned.m8n8.trans.b16 d, a;", "u4", a=a)
    assert same(d.view("u2"), fragments(matrix.swapaxes(1, 2)).ravel())


def test_a_row_that_is_not_aligned_is_a_fault():
    with pytest.raises(Fault, match="is not aligned to 16"):
        load("add.u32 %s, %s, 8; ldmatrix.sync.aligned.m8n8.x1.shared.b16", 1)


def test_a_matrix_that_only_some_threads_load_is_a_fault():
    text = "setp.lt.u32 p, a, 16; @p movmatrix.sync.aligned.m8n8.trans.b16 d, a;"
    with pytest.raises(Fault, match="needs all 32 threads of the warp") as raised:
        compute(f".reg .pred p; {text}", "u4", a=integers("u4", 1, 32))
    assert raised.value.kind == "aligned"
