# SPDX-License-Identifier: MIT
"""Integer instructions of the software GPU (PTX ISA 9.7.1, 9.7.2), against exact integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from gpusim_kernels import compute, execute, integers, same

TYPES = {"u16": np.uint16, "s16": np.int16, "u32": np.uint32, "s32": np.int32, "u64": np.uint64,
         "s64": np.int64}  # fmt: skip
WORDS = ("u32", "s32", "u64", "s64")


def wrapped(values: list[int], dtype: object) -> np.ndarray:
    """The low bits of exact integers."""
    bits = 8 * np.dtype(dtype).itemsize
    return np.array([v % (1 << bits) for v in values], f"u{bits // 8}").view(dtype)


def check(
    text: str, result: str, rule: Callable[..., int], *types: str, widths: object = None
) -> None:
    """The instruction on random operands a, b, ... of the types is the rule on exact integers."""
    sources = {
        name: integers(TYPES[type_], seed=7 * index + 1)
        for index, (name, type_) in enumerate(zip("abcd", types, strict=False))
    }
    columns = [[int(v) for v in source] for source in sources.values()]
    expected = wrapped([rule(*row) for row in zip(*columns, strict=True)], TYPES[result])
    assert same(compute(text, TYPES[result], **sources), expected)


def bits_of(type_: str) -> int:
    return int(type_[1:])


def clamp32(value: int) -> int:
    return max(-(2**31), min(2**31 - 1, value))


@pytest.mark.parametrize("type_", TYPES)
def test_add_sub_and_mul_wrap_around(type_):
    bits = bits_of(type_)
    check(f"add.{type_} d, a, b;", type_, lambda a, b: a + b, type_, type_)
    check(f"sub.{type_} d, a, b;", type_, lambda a, b: a - b, type_, type_)
    check(f"mul.lo.{type_} d, a, b;", type_, lambda a, b: a * b, type_, type_)
    check(f"mul.hi.{type_} d, a, b;", type_, lambda a, b: a * b >> bits, type_, type_)
    check(f"mad.lo.{type_} d, a, b, c;", type_, lambda a, b, c: a * b + c, *[type_] * 3)
    check(f"mad.hi.{type_} d, a, b, c;", type_, lambda a, b, c: (a * b >> bits) + c, *[type_] * 3)


@pytest.mark.parametrize(
    ("type_", "wide"), [("u16", "u32"), ("s16", "s32"), ("u32", "u64"), ("s32", "s64")]
)
def test_wide_products_keep_all_bits(type_, wide):
    check(f"mul.wide.{type_} d, a, b;", wide, lambda a, b: a * b, type_, type_)
    check(f"mad.wide.{type_} d, a, b, c;", wide, lambda a, b, c: a * b + c, type_, type_, wide)


@pytest.mark.parametrize("type_", TYPES)
def test_division_truncates(type_):
    def quotient(a: int, b: int) -> int:
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) if b else -1

    check(f"div.{type_} d, a, b;", type_, quotient, type_, type_)
    check(
        f"rem.{type_} d, a, b;",
        type_,
        lambda a, b: a - quotient(a, b) * b if b else a,
        type_,
        type_,
    )


@pytest.mark.parametrize("type_", TYPES)
def test_min_max_and_sum_of_differences(type_):
    check(f"min.{type_} d, a, b;", type_, min, type_, type_)
    check(f"max.{type_} d, a, b;", type_, max, type_, type_)
    check(f"sad.{type_} d, a, b, c;", type_, lambda a, b, c: abs(a - b) + c, *[type_] * 3)


@pytest.mark.parametrize("type_", ["s16", "s32", "s64"])
def test_neg_and_abs_of_the_least_number_wrap_around(type_):
    check(f"neg.{type_} d, a;", type_, lambda a: -a, type_)
    check(f"abs.{type_} d, a;", type_, abs, type_)


def test_saturating_sums():
    check("add.sat.s32 d, a, b;", "s32", lambda a, b: clamp32(a + b), "s32", "s32")
    check("sub.sat.s32 d, a, b;", "s32", lambda a, b: clamp32(a - b), "s32", "s32")
    check(
        "mad.hi.sat.s32 d, a, b, c;",
        "s32",
        lambda a, b, c: clamp32((a * b >> 32) + c),
        *["s32"] * 3,
    )


def test_relu_of_min_and_max():
    check("min.relu.s32 d, a, b;", "s32", lambda a, b: max(min(a, b), 0), "s32", "s32")
    check("max.relu.s32 d, a, b;", "s32", lambda a, b: max(a, b, 0), "s32", "s32")


@pytest.mark.parametrize("type_", ["u32", "s32"])
def test_products_of_24_bits(type_):
    def low24(value: int) -> int:
        low = value % (1 << 24)
        return low - (1 << 24) if type_ == "s32" and low >= 1 << 23 else low

    def product(a: int, b: int) -> int:
        return low24(a) * low24(b)

    check(f"mul24.lo.{type_} d, a, b;", type_, product, type_, type_)
    check(f"mul24.hi.{type_} d, a, b;", type_, lambda a, b: product(a, b) >> 16, type_, type_)
    check(f"mad24.lo.{type_} d, a, b, c;", type_, lambda a, b, c: product(a, b) + c, *[type_] * 3)
    check(
        f"mad24.hi.{type_} d, a, b, c;",
        type_,
        lambda a, b, c: (product(a, b) >> 16) + c,
        *[type_] * 3,
    )


@pytest.mark.parametrize("sign", ["u", "s"])
@pytest.mark.parametrize("name", ["add", "min", "max"])
def test_pairs_of_16_bits(name, sign):
    a, b = (integers(f"{'i' if sign == 's' else 'u'}2", seed, 2048) for seed in (1, 2))
    d = compute(f"{name}.{sign}16x2 d, a, b;", np.uint32, a=a.view("u4"), b=b.view("u4"))
    rule = {"add": np.add, "min": np.minimum, "max": np.maximum}[name]
    assert same(d, rule(a, b).view("u4"))


@pytest.mark.parametrize("name", ["min", "max"])
def test_relu_of_pairs(name):
    a, b = (integers(np.int16, seed, 2048) for seed in (1, 2))
    d = compute(f"{name}.relu.s16x2 d, a, b;", np.uint32, a=a.view("u4"), b=b.view("u4"))
    rule = {"min": np.minimum, "max": np.maximum}[name]
    assert same(d, np.maximum(rule(a, b), 0).astype("i2").view("u4"))


@pytest.mark.parametrize("atype", ["u32", "s32"])
@pytest.mark.parametrize("btype", ["u32", "s32"])
def test_dot_products_of_bytes(atype, btype):
    def dtype(type_: str, size: int) -> str:
        return f"{'i' if type_ == 's32' else 'u'}{size}"

    words = [integers(np.uint32, seed) for seed in (1, 2, 3)]
    operands = dict(zip("abc", words, strict=True))
    a4, b4 = words[0].view(dtype(atype, 1)), words[1].view(dtype(btype, 1))
    products = (a4.astype("i8") * b4).reshape(-1, 4)
    d = compute(f"dp4a.{atype}.{btype} d, a, b, c;", np.uint32, **operands)
    assert same(d, (products.sum(1) + words[2]).astype("u4"))
    a2 = words[0].view(dtype(atype, 2)).astype("i8").reshape(-1, 2)
    for which, half in (("lo", slice(0, 2)), ("hi", slice(2, 4))):
        d = compute(f"dp2a.{which}.{atype}.{btype} d, a, b, c;", np.uint32, **operands)
        products = a2 * b4.reshape(-1, 4)[:, half]
        assert same(d, (products.sum(1) + words[2]).astype("u4"))


@pytest.mark.parametrize("bits", [32, 64])
def test_carries_chain_sums_of_any_width(bits):
    dtype = f"u{bits // 8}"
    low_a, high_a, low_b, high_b = (integers(dtype, seed) for seed in range(4))
    operands = {"a": low_a, "b": low_b, "e": high_a, "f": high_b}
    modulus = 1 << 2 * bits

    def whole(low: np.ndarray, high: np.ndarray) -> list[int]:
        return [int(x) | int(y) << bits for x, y in zip(low, high, strict=True)]

    pairs = list(zip(whole(low_a, high_a), whole(low_b, high_b), strict=True))
    for opcode, rule in (("add", lambda a, b: a + b), ("sub", lambda a, b: a - b)):
        text = (
            f"{opcode}.cc.u{bits} d, a, b; {opcode}c.cc.u{bits} g, e, f; {opcode}c.u{bits} h, 0, 0;"
        )
        low, high, carry = execute(text, {"d": dtype, "g": dtype, "h": dtype}, **operands)
        exact = [rule(a, b) for a, b in pairs]
        assert whole(low, high) == [v % modulus for v in exact]
        assert [int(v) for v in carry] == [(v >> 2 * bits) % (1 << bits) for v in exact]


def test_carries_chain_products():
    a, b, c, e = (integers(np.uint32, seed) for seed in range(4))
    text = "mad.lo.cc.u32 d, a, b, c; madc.hi.u32 g, a, b, e;"
    low, high = execute(text, {"d": "u4", "g": "u4"}, a=a, b=b, c=c, e=e)
    wide = [
        (int(x) * int(y) + int(z) + (int(w) << 32)) % (1 << 64)
        for x, y, z, w in zip(a, b, c, e, strict=True)
    ]
    assert [int(x) | int(y) << 32 for x, y in zip(low, high, strict=True)] == wide
