# SPDX-License-Identifier: MIT
"""Logic, shifts, bit fields, counts and bytes (PTX ISA 9.7.1.14-20, 9.7.8, 9.7.9.7)."""

from __future__ import annotations

import numpy as np
import pytest
from gpusim_kernels import compute, execute, integers, same

SIZES = (16, 32, 64)


def unsigned(bits: int, seed: int, count: int = 1024) -> np.ndarray:
    return integers(f"u{bits // 8}", seed, count)


def by_element(rule, *arrays: np.ndarray, dtype: object) -> np.ndarray:
    rows = zip(*([int(v) for v in array] for array in arrays), strict=True)
    bits = 8 * np.dtype(dtype).itemsize
    return np.array([rule(*row) % (1 << bits) for row in rows], f"u{bits // 8}").view(dtype)


@pytest.mark.parametrize("bits", SIZES)
def test_logic(bits):
    a, b = unsigned(bits, 1), unsigned(bits, 2)
    for name, rule in (("and", np.bitwise_and), ("or", np.bitwise_or), ("xor", np.bitwise_xor)):
        assert same(compute(f"{name}.b{bits} d, a, b;", a.dtype, a=a, b=b), rule(a, b))
    assert same(compute(f"not.b{bits} d, a;", a.dtype, a=a), ~a)
    assert same(compute(f"cnot.b{bits} d, a;", a.dtype, a=a), (a == 0).astype(a.dtype))


def test_logic_of_predicates():
    a, b = (np.random.default_rng(seed).random(256) < 0.5 for seed in (1, 2))
    text = "and.pred d, a, b; or.pred e, a, b; xor.pred f, a, b; not.pred g, a; mov.pred h, b;"
    found = execute(text, dict.fromkeys("defgh", bool), a=a, b=b)
    for actual, expected in zip(found, (a & b, a | b, a ^ b, ~a, b), strict=True):
        assert (actual == expected).all()


@pytest.mark.parametrize("bits", SIZES)
def test_shifts_by_more_than_the_width_leave_nothing_but_the_sign(bits):
    a = unsigned(bits, 1)
    n = np.random.default_rng(2).choice([0, 1, 5, 15, 16, 31, 32, 63, 64, 200, 2**32 - 1], a.size)
    n = n.astype("u4")
    signed = a.view(f"i{bits // 8}")
    left = by_element(lambda x, k: x << k if k < bits else 0, a, n, dtype=a.dtype)
    right = by_element(lambda x, k: x >> k if k < bits else 0, a, n, dtype=a.dtype)
    arithmetic = by_element(lambda x, k: x >> min(k, bits), signed, n, dtype=a.dtype)
    assert same(compute(f"shl.b{bits} d, a, n;", a.dtype, a=a, n=n), left)
    assert same(compute(f"shr.u{bits} d, a, n;", a.dtype, a=a, n=n), right)
    assert same(compute(f"shr.b{bits} d, a, n;", a.dtype, a=a, n=n), right)
    assert same(compute(f"shr.s{bits} d, a, n;", a.dtype, a=a, n=n), arithmetic)


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
def test_funnel_shifts(mode):
    a, b = unsigned(32, 1), unsigned(32, 2)
    n = np.random.default_rng(3).integers(0, 70, a.size).astype("u4")

    def amount(k: int) -> int:
        return k % 32 if mode == "wrap" else min(k, 32)

    left = by_element(lambda x, y, k: ((y << 32 | x) << amount(k)) >> 32, a, b, n, dtype="u4")
    right = by_element(lambda x, y, k: (y << 32 | x) >> amount(k), a, b, n, dtype="u4")
    assert same(compute(f"shf.l.{mode}.b32 d, a, b, n;", "u4", a=a, b=b, n=n), left)
    assert same(compute(f"shf.r.{mode}.b32 d, a, b, n;", "u4", a=a, b=b, n=n), right)


def test_lop3_computes_every_table():
    a, b, c = (unsigned(32, seed, 64) for seed in (1, 2, 3))
    texts = "\n".join(f"lop3.b32 d{table}, a, b, c, {table};" for table in range(256))
    found = execute(texts, {f"d{table}": "u4" for table in range(256)}, a=a, b=b, c=c)
    for table, actual in enumerate(found):
        expected = np.zeros_like(a)
        for row in range(8):
            if table >> row & 1:
                terms = [x if row & bit else ~x for x, bit in ((a, 4), (b, 2), (c, 1))]
                expected |= terms[0] & terms[1] & terms[2]
        assert same(actual, expected), table


def test_lop3_combines_whether_its_result_is_zero_with_a_predicate():
    a = np.array([0, 1, 2, 3, 0, 1, 2, 3], np.uint32)
    q = np.array([0, 0, 0, 0, 1, 1, 1, 1], bool)
    text = "lop3.or.b32 d|p, a, 2, 0, 0xC0, q; lop3.and.b32 _|r, a, 2, 0, 0xC0, q;"
    d, p, r = execute(text, {"d": "u4", "p": bool, "r": bool}, a=a, q=q)
    assert same(d, a & 2)
    assert (p == (((a & 2) != 0) | q)).all()
    assert (r == (((a & 2) != 0) & q)).all()


def bfe(a: int, pos: int, length: int, bits: int, signed: bool) -> int:
    """The pseudo-code of PTX ISA 9.7.1.19."""
    pos, length = pos & 0xFF, length & 0xFF
    sign = a >> min(pos + length - 1, bits - 1) & 1 if signed and length else 0
    return sum(
        (a >> (pos + i) & 1 if i < length and pos + i < bits else sign) << i for i in range(bits)
    )


def bfi(a: int, b: int, pos: int, length: int, bits: int) -> int:
    """The pseudo-code of PTX ISA 9.7.1.20."""
    pos, length = pos & 0xFF, length & 0xFF
    for i in range(min(length, max(bits - pos, 0))):
        b = b & ~(1 << (pos + i)) | (a >> i & 1) << (pos + i)
    return b


@pytest.mark.parametrize("bits", [32, 64])
def test_bit_fields(bits):
    a, b = unsigned(bits, 1, 512), unsigned(bits, 2, 512)
    random = np.random.default_rng(3)
    pos, length = (random.choice([*range(70), 128, 255, 256 + 7], 512).astype("u4") for _ in "ab")
    for sign in "us":
        expected = by_element(
            lambda x, p, n, s=sign: bfe(x, p, n, bits, s == "s"), a, pos, length, dtype=a.dtype
        )
        text = f"bfe.{sign}{bits} d, a, pos, length;"
        assert same(compute(text, a.dtype, a=a, pos=pos, length=length), expected)
    expected = by_element(lambda *row: bfi(*row, bits), a, b, pos, length, dtype=a.dtype)
    text = f"bfi.b{bits} d, a, b, pos, length;"
    assert same(compute(text, a.dtype, a=a, b=b, pos=pos, length=length), expected)


@pytest.mark.parametrize("bits", [32, 64])
def test_counts_of_bits(bits):
    a = unsigned(bits, 1)
    signed = a.view(f"i{bits // 8}")
    rules = {
        f"popc.b{bits}": lambda x: x.bit_count(),
        f"clz.b{bits}": lambda x: bits - x.bit_length(),
        f"bfind.u{bits}": lambda x: x.bit_length() - 1,
        f"bfind.shiftamt.u{bits}": lambda x: bits - x.bit_length() if x else -1,
    }
    for name, rule in rules.items():
        expected = by_element(rule, a, dtype="u4")
        assert same(compute(f"{name} d, a;", "u4", a=a), expected), name
    expected = by_element(lambda x: (x if x >= 0 else ~x).bit_length() - 1, signed, dtype="u4")
    assert same(compute(f"bfind.s{bits} d, a;", "u4", a=a), expected)
    expected = by_element(lambda x: int(f"{x:0{bits}b}"[::-1], 2), a, dtype=a.dtype)
    assert same(compute(f"brev.b{bits} d, a;", a.dtype, a=a), expected)


# PTX ISA 9.7.9.7: for each mode and the low bits of the selector, the bytes from the lowest.
PRMT = {
    "f4e": ([0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]),
    "b4e": ([0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]),
    "rc8": ([0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]),
    "ecl": ([0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]),
    "ecr": ([0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]),
    "rc16": ([0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]),
}


@pytest.mark.parametrize("mode", PRMT)
def test_prmt_modes(mode):
    a, b = unsigned(32, 1), unsigned(32, 2)
    c = unsigned(32, 3)
    bytes_ = np.stack([a, b], 1).view("u1")
    chosen = np.array(PRMT[mode])[c % 4]
    expected = np.take_along_axis(bytes_, chosen, 1).copy().view("u4")[:, 0]
    assert same(compute(f"prmt.b32.{mode} d, a, b, c;", "u4", a=a, b=b, c=c), expected)


def test_prmt_selects_bytes_or_spreads_their_sign():
    a, b, c = (unsigned(32, seed) for seed in (1, 2, 3))
    bytes_ = np.stack([a, b], 1).view("u1")
    nibbles = np.stack([c >> 4 * i & 15 for i in range(4)], 1)
    chosen = np.take_along_axis(bytes_, (nibbles & 7).astype("i8"), 1)
    signs = (chosen.view("i1") >> 7).view("u1")
    expected = np.where(nibbles & 8, signs, chosen).astype("u1").view("u4")[:, 0]
    assert same(compute("prmt.b32 d, a, b, c;", "u4", a=a, b=b, c=c), expected)


def test_fns_finds_the_nth_bit_that_is_set():
    mask, base = unsigned(32, 1), unsigned(32, 2) % np.uint32(34)
    offset = np.random.default_rng(3).integers(-6, 7, mask.size).astype("i4")

    def nth(mask: int, base: int, offset: int) -> int:
        if base > 31:
            return 0xFFFFFFFF
        order = range(base, 32) if offset >= 0 else range(base, -1, -1)
        found = [at for at in order if mask >> at & 1]
        if offset == 0:
            return base if mask >> base & 1 else 0xFFFFFFFF
        return found[abs(offset) - 1] if abs(offset) <= len(found) else 0xFFFFFFFF

    expected = [
        nth(*row) for row in zip(mask.tolist(), base.tolist(), offset.tolist(), strict=True)
    ]
    d = compute("fns.b32 d, a, b, c;", "u4", a=mask, b=base, c=offset)
    assert same(d, np.array(expected, "u4"))


@pytest.mark.parametrize("mode", ["clamp", "wrap"])
def test_a_field_of_low_bits_is_extended(mode):
    a = unsigned(32, 1)
    b = unsigned(32, 2) % np.uint32(70)
    bits = (np.minimum(b, 32) if mode == "clamp" else b & 31).astype("u8")
    low = a.astype("u8") & ((np.uint64(1) << bits) - np.uint64(1))
    assert same(compute(f"szext.{mode}.u32 d, a, b;", "u4", a=a, b=b), low.astype("u4"))
    sign = (bits > 0) & (low >> (np.maximum(bits, 1) - np.uint64(1)) & np.uint64(1) == 1)
    extended = np.where(sign, low.astype("i8") - (np.int64(1) << bits.astype("i8")), low)
    d = compute(f"szext.{mode}.s32 d, a, b;", "i4", a=a.view("i4"), b=b)
    assert same(d, extended.astype("i8").astype("i4"))


@pytest.mark.parametrize("mode", ["clamp", "wrap"])
def test_a_mask_has_so_many_ones_from_a_bit_on(mode):
    a, b = (unsigned(32, seed) % np.uint32(70) for seed in (1, 2))
    first, count = ((np.minimum(n, 32) if mode == "clamp" else n & 31).tolist() for n in (a, b))
    expected = [((1 << n) - 1) << at & 0xFFFFFFFF for at, n in zip(first, count, strict=True)]
    d = compute(f"bmsk.{mode}.b32 d, a, b;", "u4", a=a, b=b)
    assert same(d, np.array(expected, "u4"))
