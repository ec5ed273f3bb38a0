# SPDX-License-Identifier: MIT
"""Forms of tcgen05.mma: integers, scaled D, shifted A, weight stationary, masked columns of B."""

from __future__ import annotations

from collections.abc import Iterator

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
    random_matrix,
)
from ts_gpusim.faults import Fault
from ts_gpusim.ptx.errors import PtxError

COLUMNS = 128  # of tensor memory that a test fills and reads; D begins at column 0
A_COLUMN = 64
F32, S32 = 1, 2  # types of D in an instruction descriptor


@pytest.fixture(autouse=True)
def blackwell() -> Iterator[None]:
    with ts_gpusim.device("sm_100a"):
        yield


def description(m: int, n: int, d_type: int, a_type: int, b_type: int, more: int = 0) -> int:
    return d_type << 4 | a_type << 7 | b_type << 10 | n >> 3 << 17 | m >> 4 << 24 | more


def memory(seed: int = 3) -> np.ndarray:
    """Floats, [128, COLUMNS]."""
    return np.random.default_rng(seed).standard_normal((128, COLUMNS)).astype(np.float32)


def multiply(
    form: str,
    idesc: int,
    a: Operand,
    b: Operand,
    init: np.ndarray,
    after: str = "",
    mask: int = 0,
    a_in_tensor_memory: bool = False,
) -> np.ndarray:
    """Tensor memory after D += A B. `after`: operands behind enable-input-d."""
    image = np.concatenate([a.image, b.image])
    a_operand = f"[%tmem+{A_COLUMN}]" if a_in_tensor_memory else "%a"
    code = f"""{image_to_box(image.size)}{alloc()}{fill_tensor_memory(COLUMNS)}{INIT}
    tcgen05.fence::after_thread_sync;
    ld.param.u32 %idesc, [idesc];
    ld.param.u64 %a, [a];
    ld.param.u64 %b, [b];
    ld.param.u64 %address, [mask];
    mov.u32 %zero, 0;
    setp.ne.u32 %enable, 1, %zero;
    @%first tcgen05.mma.{form} [%tmem], {a_operand}, %b, %idesc, %enable{after};
    @%first tcgen05.commit.cta_group::1.mbarrier::arrive::one.b64 [%bar];
{WAIT}{drain_tensor_memory(COLUMNS)}{dealloc()}"""
    parameters = ".param .u64 in, .param .u64 init, .param .u64 out, .param .u32 idesc"
    parameters += ", .param .u64 a, .param .u64 b, .param .u64 mask"
    out = np.zeros_like(init)
    arguments = [image, init, out, idesc, a.tcgen05(0, BOX), b.tcgen05(0, BOX + a.image.size), mask]
    launch(kernel(parameters, image.size, code), arguments)
    return out


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize(("a_type", "b_type"), [("s8", "s8"), ("u8", "u8"), ("s8", "u8")])
def test_kind_i8_adds_integers(a_type, b_type, saturates):
    a, b = random_matrix(128, a_type, 1, 1), random_matrix(64, b_type, 2, 1)
    random = np.random.default_rng(3)
    init = random.integers(-(2**31), 2**31, (128, COLUMNS)).astype(np.int32)
    init[:, ::2] = np.where(init[:, ::2] > 0, 2**31 - 1, -(2**31))
    types = ["u8", "s8"]
    idesc = description(128, 64, S32, types.index(a_type), types.index(b_type), saturates << 3)
    operands = operand(a.bits, 32, False), operand(b.bits, 32, False)
    out = multiply("cta_group::1.kind::i8", idesc, *operands, init)
    expected = init.astype(np.int64)
    expected[:, :64] += (a.values @ b.values.T).astype(np.int64)
    if saturates:
        expected = np.clip(expected, -(2**31), 2**31 - 1)
    np.testing.assert_array_equal(out, expected.astype(np.int32))


@pytest.mark.parametrize("scale", [0, 1, 15])
def test_d_is_scaled_by_a_power_of_two(scale):
    a, b = random_matrix(128, "bf16", 1, 1), random_matrix(64, "bf16", 2, 1)
    init = memory()
    operands = operand(a.bits, 32, False), operand(b.bits, 32, False)
    idesc = description(128, 64, F32, 1, 1)
    out = multiply("cta_group::1.kind::f16", idesc, *operands, init, f", {scale}")
    expected = init[:, :64] * 2.0**-scale + a.values @ b.values.T
    np.testing.assert_allclose(out[:, :64], expected, rtol=1e-5, atol=1e-5)


def test_only_kinds_f16_and_tf32_scale_d():
    a, b = random_matrix(128, "e4m3", 1, 1), random_matrix(64, "e4m3", 2, 1)
    operands = operand(a.bits, 32, False), operand(b.bits, 32, False)
    idesc = description(128, 64, F32, 0, 0)
    with pytest.raises(PtxError, match="D is scaled by 3: kinds f16 and tf32 allow 0 to 15"):
        multiply("cta_group::1.kind::f8f6f4", idesc, *operands, memory(), ", 3")


def test_a_in_tensor_memory_may_be_shifted_by_a_row():
    a, b = random_matrix(128, "f16", 1, 1), random_matrix(64, "f16", 2, 1)
    init = memory()
    init[:, A_COLUMN : A_COLUMN + 8] = a.bits.view(np.float32)
    operands = operand(a.bits, 32, False), operand(b.bits, 32, False)
    form = "cta_group::1.kind::f16.ashift.collector::a::lastuse"
    idesc = description(128, 64, F32, 0, 0)
    out = multiply(form, idesc, *operands, init, a_in_tensor_memory=True)
    shifted = np.concatenate([a.values[1:], a.values[-1:]])
    expected = init[:, :64] + shifted @ b.values.T
    np.testing.assert_allclose(out[:, :64], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("a_in_tensor_memory", [False, True])
@pytest.mark.parametrize("m", [32, 64, 128])
def test_a_weight_stationary_mma_has_banks_of_columns(m, a_in_tensor_memory):
    a, b = random_matrix(m, "f16", 1, 1), random_matrix(64, "f16", 2, 1)
    init = memory()
    banks, columns = 128 // m, 64 * m // 128
    init[:, A_COLUMN : A_COLUMN + 8] = np.tile(a.bits.view(np.float32), (banks, 1))
    operands = operand(a.bits, 32, False), operand(b.bits, 32, False)
    form = "ws.cta_group::1.kind::f16.collector::b1::fill"
    idesc = description(m, 64, F32, 0, 0)
    out = multiply(form, idesc, *operands, init, a_in_tensor_memory=a_in_tensor_memory)
    product = (a.values @ b.values.T).reshape(m, banks, columns).transpose(1, 0, 2)
    expected = init.copy()
    expected[:, :columns] += product.reshape(128, columns)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


# PTX ISA 9.7.16.4.3, examples 2 to 4: rows of B, the start counts and first spans of the banks
# (the first in the lowest bits), and the first columns of each bank's mask.
ZERO_COLUMNS = {
    128: ([0], [0], ["00001110000111"]),
    64: ([0, 0], [1, 0], ["11100001110000", "00001110000111"]),
    32: ([0, 1, 2, 1], [1, 1, 0, 0], ["11100001110000", "11000011100001",
                                      "00111000011100", "00011100001110"]),
}  # fmt: skip


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("m", ZERO_COLUMNS)
def test_a_zero_column_mask_leaves_out_spans_of_columns(m, shift):
    starts, firsts, masks = ZERO_COLUMNS[m]
    a, b = random_matrix(m, "f16", 1, 1), random_matrix(72, "f16", 2, 1)
    mask = 1 << 39 | 2 << 40 | 3 << 48 | shift << 56
    for bank, (start, first) in enumerate(zip(starts, firsts, strict=True)):
        mask |= start << 8 * bank | first << 32 + bank
    init = memory()
    banks, columns = 128 // m, 64 * m // 128
    operands = operand(a.bits, 32, False), operand(b.bits, 32, False)
    idesc = description(m, 64, F32, 0, 0, 1 << 30)
    out = multiply("ws.cta_group::1.kind::f16", idesc, *operands, init, ", %address", mask)
    zero = np.array([[int(bit) for bit in (row * 8)[:columns]] for row in _periodic(masks)])
    product = a.values @ (b.values[shift : shift + 64] * (1 - zero.reshape(64, 1))).T
    expected = init.copy()
    expected[:, :columns] += (
        product.reshape(m, banks, columns).transpose(1, 0, 2).reshape(128, columns)
    )
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def _periodic(masks: list[str]) -> list[str]:
    """The spans have 4 and 3 columns: a mask repeats after 7, and so do its first 7."""
    for mask in masks:
        assert mask[:7] == mask[7:14]
    return [mask[:7] * 2 for mask in masks]


def test_a_shift_of_columns_is_as_large_as_the_descriptor_allows():
    a, b = random_matrix(128, "f16", 1, 1), random_matrix(72, "f16", 2, 1)
    operands = operand(a.bits, 32, False), operand(b.bits, 32, False)
    idesc = description(128, 64, F32, 0, 0)
    with pytest.raises(Fault, match="shifts by 2 columns; the instruction descriptor allows 0"):
        multiply("ws.cta_group::1.kind::f16", idesc, *operands, memory(), ", %address", 2 << 56)


def test_tf32_whose_rows_adjoin_is_swizzled_in_atoms_of_32_bytes():
    """128 bytes of rows, 4 k: 32-byte atoms trade places by the number of the line."""
    a, b = random_matrix(128, "tf32", 1, 1), random_matrix(64, "tf32", 2, 1)
    own_a = operand(a.bits, 32, False)
    row, k = np.meshgrid(np.arange(64), np.arange(8), indexing="ij")
    place = row // 32 * 512 + k // 4 * 1024 + k % 4 * 128 + row % 32 * 4
    place ^= (place >> 7 & 3) << 5
    image = np.zeros(2048, np.uint8)
    image.view(np.uint32)[place // 4] = b.bits
    own_b = Operand(image, [0], leading=512, stride=1024, swizzle=128)
    idesc = description(128, 64, F32, 2, 2, 1 << 16)
    init = memory()
    bits = own_b.tcgen05(0, BOX + own_a.image.size) & ~(7 << 61) | 1 << 61

    class Atoms(Operand):
        def tcgen05(self, step: int, base: int) -> int:
            return bits

    out = multiply("cta_group::1.kind::tf32", idesc, own_a, Atoms(**vars(own_b)), init)
    expected = init[:, :64] + a.values @ b.values.T
    np.testing.assert_allclose(out[:, :64], expected, rtol=1e-5, atol=1e-5)


def test_a_swizzle_pattern_may_begin_between_multiples_of_1024():
    a, b = random_matrix(128, "bf16", 1, 2), random_matrix(64, "bf16", 2, 2)
    own_a = operand(a.bits, 128, False)
    moved = Operand(np.concatenate([np.zeros(256, np.uint8), own_a.image, np.zeros(768, np.uint8)]),
                    own_a.starts, own_a.leading, own_a.stride, own_a.swizzle)  # fmt: skip

    class Moved(Operand):
        def tcgen05(self, step: int, base: int) -> int:
            return super().tcgen05(step, base + 256) | 2 << 49

    init = memory()
    idesc = description(128, 64, F32, 1, 1)
    own_b = operand(b.bits, 128, False)
    out = multiply("cta_group::1.kind::f16", idesc, Moved(**vars(moved)), own_b, init)
    expected = init[:, :64] + a.values[:, :16] @ b.values[:, :16].T
    np.testing.assert_allclose(out[:, :64], expected, rtol=1e-5, atol=1e-5)
