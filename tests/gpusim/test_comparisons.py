# SPDX-License-Identifier: MIT
"""Comparison and selection (PTX ISA 9.7.6, 9.7.7, 9.7.3.1)."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from gpusim_kernels import compute, execute, floats, integers, same

ORDER = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
UNSIGNED_ORDER = {"lo": operator.lt, "ls": operator.le, "hi": operator.gt, "hs": operator.ge}
INTEGERS = {"u16": "u2", "s16": "i2", "u32": "u4", "s32": "i4", "u64": "u8", "s64": "i8"}


def pairs(make, dtype: object) -> tuple[np.ndarray, np.ndarray]:
    """Operands that are equal now and then."""
    a, b = make(dtype, 1), make(dtype, 2)
    return a, np.where(np.random.default_rng(3).random(a.size) < 0.25, a, b)


@pytest.mark.parametrize("type_", INTEGERS)
def test_comparisons_of_integers(type_):
    a, b = pairs(integers, INTEGERS[type_])
    rules = ORDER | (UNSIGNED_ORDER if type_[0] == "u" else {})
    text = "\n".join(f"setp.{name}.{type_} p_{name}|q_{name}, a, b;" for name in rules)
    names = {f"{x}_{name}": bool for name in rules for x in "pq"}
    found = dict(zip(names, execute(text, names, a=a, b=b), strict=True))
    for name, rule in rules.items():
        assert (found[f"p_{name}"] == rule(a, b)).all(), name
        assert (found[f"q_{name}"] == ~rule(a, b)).all(), name


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_comparisons_of_bits(bits):
    a, b = pairs(integers, f"u{bits // 8}")
    text = f"setp.eq.b{bits} p, a, b; setp.ne.b{bits} q, a, b;"
    p, q = execute(text, {"p": bool, "q": bool}, a=a, b=b)
    assert (p == (a == b)).all()
    assert (q == (a != b)).all()


def float_rules(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    unordered = np.isnan(a) | np.isnan(b)
    ordered = {name: rule(a, b) & ~unordered for name, rule in ORDER.items()}
    return {
        **ordered,
        **{f"{name}u": value | unordered for name, value in ordered.items()},
        "num": ~unordered,
        "nan": unordered,
    }


@pytest.mark.parametrize("type_", ["f32", "f64", "f16"])
def test_comparisons_of_floats_with_nan_are_false_or_unordered(type_):
    a, b = pairs(floats, f"f{int(type_[1:]) // 8}")
    expected = float_rules(a, b)
    text = "\n".join(f"setp.{name}.{type_} p_{name}|q_{name}, a, b;" for name in expected)
    names = {f"{x}_{name}": bool for name in expected for x in "pq"}
    found = dict(zip(names, execute(text, names, a=a, b=b), strict=True))
    for name, value in expected.items():
        assert (found[f"p_{name}"] == value).all(), name
        assert (found[f"q_{name}"] == ~value).all(), name


def test_ftz_compares_subnormal_numbers_as_zero():
    a = np.array([1e-45, -1e-40, 1e-38, 0.0], np.float32)
    b = np.zeros(4, np.float32)
    p, q = execute(
        "setp.gt.ftz.f32 p, a, b; setp.gt.f32 q, a, b;", {"p": bool, "q": bool}, a=a, b=b
    )
    assert not p.any()
    assert (q == (a > 0)).all()


def test_a_pair_of_halves_gives_two_predicates():
    a, b = (floats(np.float16, seed, 512) for seed in (1, 2))
    text = "setp.lt.f16x2 p|q, a, b;"
    p, q = execute(text, {"p": bool, "q": bool}, a=a.view("u4"), b=b.view("u4"))
    assert (p == (a < b)[::2]).all()
    assert (q == (a < b)[1::2]).all()


@pytest.mark.parametrize("how", ["and", "or", "xor"])
@pytest.mark.parametrize("negated", ["", "!"])
def test_a_comparison_is_combined_with_a_predicate(how, negated):
    a, b = pairs(integers, np.int32)
    c = np.random.default_rng(4).random(a.size) < 0.5
    other = ~c if negated else c
    rule = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[how]
    text = f"setp.lt.{how}.s32 p|q, a, b, {negated}c;"
    p, q = execute(text, {"p": bool, "q": bool}, a=a, b=b, c=c)
    assert (p == rule(a < b, other)).all()
    assert (q == rule(~(a < b), other)).all()


@pytest.mark.parametrize("to", ["u32", "s32", "f32"])
def test_set_leaves_all_ones_or_one(to):
    a, b = pairs(floats, np.float32)
    c = np.random.default_rng(4).random(a.size) < 0.5
    true = np.float32(1).view("u4") if to == "f32" else np.uint32(0xFFFFFFFF)
    d = compute(f"set.ltu.and.{to}.f32 d, a, b, c;", "u4", a=a, b=b, c=c)
    assert same(d, np.where((~(a >= b)) & c, true, np.uint32(0)))


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_selections(bits):
    a, b = (integers(f"u{bits // 8}", seed) for seed in (1, 2))
    p = np.random.default_rng(3).random(a.size) < 0.5
    c = integers(np.int32, 4)
    f = floats(np.float32, 5)
    assert same(compute(f"selp.b{bits} d, a, b, p;", a.dtype, a=a, b=b, p=p), np.where(p, a, b))
    assert same(compute(f"selp.b{bits} d, a, b, !p;", a.dtype, a=a, b=b, p=p), np.where(p, b, a))
    d = compute(f"slct.u{bits}.s32 d, a, b, c;", a.dtype, a=a, b=b, c=c)
    assert same(d, np.where(c >= 0, a, b))
    d = compute(f"slct.u{bits}.f32 d, a, b, f;", a.dtype, a=a, b=b, f=f)
    assert same(d, np.where(f >= 0, a, b))


@pytest.mark.parametrize("type_", ["f32", "f64"])
def test_kinds_of_numbers(type_):
    a = floats(f"f{int(type_[1:]) // 8}", 1)
    tiny = np.finfo(a.dtype).tiny
    subnormal = (np.abs(a) < tiny) & (a != 0)
    expected = {
        "finite": np.isfinite(a),
        "infinite": np.isinf(a),
        "number": ~np.isnan(a),
        "notanumber": np.isnan(a),
        "normal": np.isfinite(a) & ~subnormal,
        "subnormal": subnormal,
    }
    text = "\n".join(f"testp.{name}.{type_} {name}, a;" for name in expected)
    found = execute(text, dict.fromkeys(expected, bool), a=a)
    for name, actual in zip(expected, found, strict=True):
        assert (actual == expected[name]).all(), name


@pytest.mark.parametrize("type_", ["f16", "bf16"])
def test_set_gives_halves_of_one_and_zero(type_):
    one = {"f16": 0x3C00, "bf16": 0x3F80}[type_]
    a, b = floats("f4", 1), floats("f4", 2)
    d = compute(f"set.lt.{type_}.f32 d, a, b;", "u2", a=a, b=b)
    assert (d == np.where(a < b, one, 0)).all()
    i, j = integers("i4", 3), integers("i4", 4)
    assert (
        compute(f"set.ge.{type_}.s32 d, a, b;", "u2", a=i, b=j) == np.where(i >= j, one, 0)
    ).all()


def test_set_compares_halves():
    a, b = floats("f2", 1), floats("f2", 2)
    less, far = a < b, (a < b) | np.isnan(a) | np.isnan(b)
    text = "set.lt.u32.f16 d, a, b; set.ltu.s16.f16 e, a, b; set.lt.f16.f16 f, a, b;"
    d, e, f = execute(text, {"d": "u4", "e": "u2", "f": "f2"}, a=a, b=b)
    assert (d == np.where(less, 0xFFFFFFFF, 0)).all()
    assert (e == np.where(far, 0xFFFF, 0)).all()
    assert (f == less).all()


def test_set_of_pairs_is_of_each_half():
    a, b = floats("f2", 1), floats("f2", 2)
    d = compute("set.gt.f16x2.f16x2 d, a, b;", "u4", a=a.view("u4"), b=b.view("u4"))
    assert (d.view("f2") == (a > b)).all()


def test_ftz_compares_subnormal_halves_as_zero():
    a = np.array([6e-8, -6e-5, 6.2e-5, 0, 1, np.nan] * 6, "f2")[:32]
    p, q = execute(
        "setp.eq.ftz.f16 p, a, 0x0000; setp.eq.f16 q, a, 0x0000;", {"p": bool, "q": bool}, a=a
    )
    assert (p == (np.abs(a) < np.float16(6.104e-5))).all()
    assert (q == (a == 0)).all()
