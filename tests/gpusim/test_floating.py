# SPDX-License-Identifier: MIT
"""Floating-point instructions (PTX ISA 9.7.3, 9.7.4, 9.7.5), against numpy and exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from gpusim_kernels import compute, execute, floats, round_to, rounded, same

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

F32, F64, F16 = np.float32, np.float64, np.float16
TINY = np.finfo(F32).tiny
BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
ROUNDINGS = ("rn", "rz", "rm", "rp")


def flushed(a: np.ndarray) -> np.ndarray:
    tiny = np.finfo(a.dtype).tiny
    return np.where(np.abs(a) < tiny, np.copysign(a.dtype.type(0), a), a)


def exact(opcode: str, a: float, b: float, c: float) -> Fraction:
    x, y = Fraction(a), Fraction(b)
    if opcode == "fma":
        return x * y + Fraction(c)
    return {"add": lambda: x + y, "sub": lambda: x - y, "mul": lambda: x * y,
            "div": lambda: x / y}[opcode]()  # fmt: skip


def sign_of_zero(opcode: str, rounding: str, a: float, b: float, c: float) -> float:
    """IEEE 754-2019, 6.3."""
    product = math.copysign(1, a) * math.copysign(1, b)
    if opcode in ("mul", "div"):
        return product
    terms = {"add": (a, b), "sub": (a, -b), "fma": (product, c)}[opcode]
    signs = {math.copysign(1, term) for term in terms}
    both = (terms[0] == 0 or opcode == "fma") and len(signs) == 1
    return signs.pop() if both else (-1.0 if rounding == "rm" else 1.0)


def reference(opcode: str, rounding: str, a, b, c, dtype: object) -> np.ndarray:
    with np.errstate(all="ignore"):
        if opcode == "fma":
            finite = np.isfinite(a) & np.isfinite(b) & ~np.isfinite(c)
            special = np.where(finite, c, a * b + c)
        else:
            special = BINARY[opcode](a, b)
    result = special.copy()
    for i, (x, y, z) in enumerate(zip(a.tolist(), b.tolist(), c.tolist(), strict=True)):
        operands = (x, y, z) if opcode == "fma" else (x, y)
        if not all(map(math.isfinite, operands)) or (opcode == "div" and y == 0):
            continue
        zero = sign_of_zero(opcode, rounding, x, y, z)
        result[i] = round_to(exact(opcode, x, y, z), dtype, rounding, zero)
    return result


def operands(dtype: object, count: int = 400) -> list[np.ndarray]:
    """A third one that now and then cancels the product of the others."""
    a, b, c = (floats(dtype, seed, count) for seed in (1, 2, 3))
    with np.errstate(all="ignore"):
        return [a, b, np.where(np.arange(count) % 4 == 0, -(a * b), c)]


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("opcode", [*BINARY, "fma"])
@pytest.mark.parametrize("type_", ["f32", "f64"])
def test_arithmetic_rounds_once_in_the_given_direction(type_, opcode, rounding):
    dtype = {"f32": F32, "f64": F64}[type_]
    a, b, c = operands(dtype)
    text = f"{opcode}.{rounding}.{type_} d, a, b{', c' if opcode == 'fma' else ''};"
    d = compute(text, dtype, a=a, b=b, c=c)
    assert same(d, reference(opcode, rounding, a, b, c, dtype))


def test_mad_of_f32_is_fma():
    a, b, c = operands(F32)
    fused = compute("fma.rn.f32 d, a, b, c;", F32, a=a, b=b, c=c)
    assert same(compute("mad.rn.f32 d, a, b, c;", F32, a=a, b=b, c=c), fused)


def test_a_fused_sum_is_not_rounded_twice():
    # 97 * 172961 is 2**24 + 1, a tie of f32; what decides it is beyond the bits of a double.
    a, b = np.full(2, 97, F32), np.full(2, 172961, F32)
    c = np.array([2.0**-100, -(2.0**-100)], F32)
    expected = np.array([2.0**24 + 2, 2.0**24], F32)
    assert same(compute("fma.rn.f32 d, a, b, c;", F32, a=a, b=b, c=c), expected)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_square_root_and_reciprocal_round_in_the_given_direction(rounding):
    a = np.abs(floats(F32, 1, 300))
    roots = np.sqrt(a)
    for i, x in enumerate(a.tolist()):
        if rounding == "rn" or not math.isfinite(x) or x == 0:
            continue
        candidates = sorted({np.nextafter(roots[i], F32(to)) for to in (0, np.inf)} | {roots[i]})
        below = [r for r in candidates if Fraction(float(r)) ** 2 <= Fraction(x)]
        above = [r for r in candidates if Fraction(float(r)) ** 2 >= Fraction(x)]
        roots[i] = min(above) if rounding == "rp" else max(below)
    assert same(compute(f"sqrt.{rounding}.f32 d, a;", F32, a=a), roots)
    a = floats(F32, 2, 300)
    one = np.ones_like(a)
    expected = reference("div", rounding, one, a, a, F32)
    assert same(compute(f"rcp.{rounding}.f32 d, a;", F32, a=a), expected)


def test_roots_and_reciprocals_of_f64():
    a = floats(F64, 1)
    assert same(compute("sqrt.rn.f64 d, a;", F64, a=a), np.sqrt(a))
    assert same(compute("rcp.rn.f64 d, a;", F64, a=a), 1 / a)


@pytest.mark.parametrize("opcode", [*BINARY, "fma"])
def test_ftz_flushes_inputs_and_results(opcode):
    a, b, c = operands(F32)
    third = ", c" if opcode == "fma" else ""
    d = compute(f"{opcode}.rn.ftz.f32 d, a, b{third};", F32, a=a, b=b, c=c)
    expected = reference(opcode, "rn", flushed(a), flushed(b), flushed(c), F32)
    assert same(d, flushed(expected))


@pytest.mark.parametrize("opcode", ["add", "sub", "mul", "fma"])
def test_sat_clamps_to_one_and_makes_nan_zero(opcode):
    a, b, c = operands(F32)
    third = ", c" if opcode == "fma" else ""
    d = compute(f"{opcode}.rn.sat.f32 d, a, b{third};", F32, a=a, b=b, c=c)
    expected = reference(opcode, "rn", a, b, c, F32)
    expected = np.where(np.isnan(expected), F32(0), np.clip(expected, F32(0), F32(1)))
    assert (d == expected).all()


@pytest.mark.parametrize("opcode", ["add", "sub", "mul", "fma"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_pairs_of_f32_are_computed_one_by_one(opcode, rounding):
    a, b, c = operands(F32)
    pair = {"a": a.view("u8"), "b": b.view("u8"), "c": c.view("u8")}
    third = ", c" if opcode == "fma" else ""
    d = compute(f"{opcode}.{rounding}.f32x2 d, a, b{third};", "u8", **pair)
    assert same(d.view(F32), reference(opcode, rounding, a, b, c, F32))


def test_a_nan_that_f32_arithmetic_makes_is_canonical():
    a = np.array([np.inf, np.nan], F32)
    d = compute("sub.f32 d, a, a;", "u4", a=a)
    assert (d == 0x7FFFFFFF).all()


def least(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The number if the other is NaN; -0 is less than +0."""
    return np.where(a == b, np.where(np.signbit(a), a, b), np.fmin(a, b))


def greatest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return -least(-a, -b)


CHOICES = {"min": least, "max": greatest}


@pytest.mark.parametrize("type_", ["f32", "f64", "f16"])
@pytest.mark.parametrize("name", CHOICES)
def test_min_and_max_of_numbers_and_nan(name, type_):
    dtype = {"f32": F32, "f64": F64, "f16": F16}[type_]
    a, b = (floats(dtype, seed) for seed in (1, 2))
    expected = CHOICES[name](a, b)
    assert same(compute(f"{name}.{type_} d, a, b;", dtype, a=a, b=b), expected)
    if type_ == "f64":
        return
    either = np.isnan(a) | np.isnan(b)
    d = compute(f"{name}.NaN.{type_} d, a, b;", dtype, a=a, b=b)
    assert same(d, np.where(either, dtype(np.nan), expected))
    magnitude = CHOICES[name](np.abs(a), np.abs(b))
    sign = np.where(np.signbit(a) != np.signbit(b), dtype(-1), dtype(1))
    d = compute(f"{name}.xorsign.abs.{type_} d, a, b;", dtype, a=a, b=b)
    assert same(d, np.copysign(magnitude, sign))


@pytest.mark.parametrize("name", CHOICES)
def test_min_and_max_of_three(name):
    a, b, c = operands(F32)
    choice = CHOICES[name]
    expected = choice(choice(a, b), c)
    assert same(compute(f"{name}.f32 d, a, b, c;", F32, a=a, b=b, c=c), expected)
    nan = np.isnan(a) | np.isnan(b) | np.isnan(c)
    d = compute(f"{name}.NaN.f32 d, a, b, c;", F32, a=a, b=b, c=c)
    assert same(d, np.where(nan, F32(np.nan), expected))
    expected = choice(choice(np.abs(a), np.abs(b)), np.abs(c))
    assert same(compute(f"{name}.abs.f32 d, a, b, c;", F32, a=a, b=b, c=c), expected)
    assert same(
        compute(f"{name}.ftz.f32 d, a, b, c;", F32, a=a, b=b, c=c),
        choice(choice(flushed(a), flushed(b)), flushed(c)),
    )


@pytest.mark.parametrize("type_", ["f32", "f64"])
def test_signs(type_):
    dtype = {"f32": F32, "f64": F64}[type_]
    a, b = (floats(dtype, seed) for seed in (1, 2))
    assert same(compute(f"neg.{type_} d, a;", dtype, a=a), -a)
    assert same(compute(f"abs.{type_} d, a;", dtype, a=a), np.abs(a))
    d = compute(f"copysign.{type_} d, a, b;", dtype, a=a, b=b)
    assert same(d, np.copysign(b, a))


APPROXIMATE = {
    "rcp": np.reciprocal, "sqrt": np.sqrt, "rsqrt": lambda a: 1 / np.sqrt(a), "sin": np.sin,
    "cos": np.cos, "lg2": np.log2, "ex2": np.exp2,
}  # fmt: skip


@pytest.mark.parametrize("ftz", ["", ".ftz"])
@pytest.mark.parametrize("name", APPROXIMATE)
def test_approximate_functions_are_within_a_unit_of_the_last_place(name, ftz):
    a = floats(F32, 1)
    source, result = (flushed, flushed) if ftz else (lambda x: x, lambda x: x)
    d = compute(f"{name}.approx{ftz}.f32 d, a;", F32, a=a)
    check_near(d, APPROXIMATE[name](source(a).astype(F64)), result)


def test_approximate_hyperbolic_tangent_and_quotients():
    a, b = (floats(F32, seed) for seed in (1, 2))
    check_near(compute("tanh.approx.f32 d, a;", F32, a=a), np.tanh(a.astype(F64)))
    full = compute("div.full.f32 d, a, b;", F32, a=a, b=b)
    check_near(full, a.astype(F64) / b.astype(F64))
    # PTX ISA 9.7.3.8: a divisor beyond 2**126 gives zero, or NaN if the dividend is infinite.
    beyond = np.abs(b) > F32(2.0**126)
    approx = compute("div.approx.f32 d, a, b;", F32, a=a, b=b)
    assert same(approx[~beyond], full[~beyond])
    expected = np.where(np.isinf(a) | np.isnan(a), F32(np.nan), F32(0))
    assert same(np.abs(approx[beyond]), expected[beyond])


def check_near(actual: np.ndarray, exact_: np.ndarray, result=lambda x: x) -> None:
    expected = result(exact_.astype(F32))
    close = np.abs(actual.astype(F64) - expected) <= np.spacing(np.abs(expected))
    close |= (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    assert close.all(), (actual[~close][:3], expected[~close][:3])


# Halves: exact in f64, save the fused sum, and rounded from there.

HALVES = {**{name: BINARY[name] for name in ("add", "sub", "mul")}, "fma": None}


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Of f64, rounded to nearest even, as bits."""
    _, exponent = np.frexp(values)
    unit = np.ldexp(1.0, np.maximum(exponent, -125) - 8)
    return (np.rint(values / unit) * unit).astype(F32).view("u4") >> 16


def from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype("u4") << 16).view(F32)


@pytest.mark.parametrize("ftz", ["", ".ftz"])
@pytest.mark.parametrize("opcode", HALVES)
def test_f16_arithmetic(opcode, ftz):
    a, b, c = operands(F16)
    x, y, z = (flushed(v).astype(F64) if ftz else v.astype(F64) for v in (a, b, c))
    # The product of two f16 has 22 bits and the sum with a third stays within f64's 53 where it
    # could be a tie.
    exact_ = x * y + z if opcode == "fma" else HALVES[opcode](x, y)
    expected = exact_.astype(F16)
    expected = flushed(expected) if ftz else expected
    rn, third = (".rn", ", c") if opcode == "fma" else ("", "")
    assert same(compute(f"{opcode}{rn}{ftz}.f16 d, a, b{third};", F16, a=a, b=b, c=c), expected)
    pairs = {"a": a.view("u4"), "b": b.view("u4"), "c": c.view("u4")}
    d = compute(f"{opcode}{rn}{ftz}.f16x2 d, a, b{third};", "u4", **pairs)
    assert same(d.view(F16), expected)
    d = compute(f"{opcode}{rn}{ftz}.sat.f16 d, a, b{third};", F16, a=a, b=b, c=c)
    clamped = np.where(np.isnan(expected), F16(0), np.clip(expected, F16(0), F16(1)))
    assert (d == clamped).all()
    if opcode == "fma":
        d = compute(f"fma.rn{ftz}.relu.f16 d, a, b, c;", F16, a=a, b=b, c=c)
        relu = np.where(expected < 0, F16(0), expected)
        assert ((d == relu) | (np.isnan(d) & np.isnan(relu))).all()


@pytest.mark.parametrize("opcode", HALVES)
def test_bf16_arithmetic(opcode):
    a, b, c = (floats(F32, seed, 400).view("u4") >> 16 for seed in (1, 2, 3))
    sources = {n: v.astype("u2") for n, v in zip("abc", (a, b, c), strict=True)}
    x, y, z = (from_bf16(v).astype(F64) for v in (a, b, c))
    if opcode == "fma":
        bits = [bf16_fma(*row) for row in zip(x.tolist(), y.tolist(), z.tolist(), strict=True)]
        expected = np.array(bits, "u4")
    else:
        expected = to_bf16(HALVES[opcode](x, y))
    rn, third = (".rn", ", c") if opcode == "fma" else ("", "")
    d = compute(f"{opcode}{rn}.bf16 d, a, b{third};", "u2", **sources)
    assert same(from_bf16(d), from_bf16(expected))
    pairs = {name: source.view("u4") for name, source in sources.items()}
    d = compute(f"{opcode}{rn}.bf16x2 d, a, b{third};", "u4", **pairs)
    assert same(from_bf16(d.view("u2")), from_bf16(expected))


def bf16_fma(x: float, y: float, z: float) -> int:
    if not all(map(math.isfinite, (x, y, z))):
        value = float(np.float64(x) * np.float64(y) + np.float64(z))
    else:
        near = rounded(Fraction(x) * Fraction(y) + Fraction(z), 7, -126, "rn")
        value = float(near) if near else math.copysign(0.0, x * y + z)
        if near == 0 and x * y + z == 0:
            value = math.copysign(0.0, sign_of_zero("fma", "rn", x, y, z))
    return int(np.float64(value).astype(F32).view("u4") >> 16)


def test_a_fused_sum_of_bf16_is_not_rounded_twice():
    # 1 + 2**-8 is a tie of bf16; what decides it is beyond the bits of a double.
    a, b = to_bf16(np.full(2, 1 + 2.0**-4)), to_bf16(np.full(2, 1 - 2.0**-4))
    c = to_bf16(np.array([2.0**-100, -(2.0**-100)]))
    sources = {n: v.astype("u2") for n, v in zip("abc", (a, b, c), strict=True)}
    d = compute("fma.rn.bf16 d, a, b, c;", "u2", **sources)
    exact_ = [Fraction(1 + 2.0**-4) * Fraction(1 - 2.0**-4) + Fraction(x) for x in (2.0**-100,
              -(2.0**-100))]  # fmt: skip
    expected = to_bf16(np.array([float(rounded(v, 7, -126, "rn")) for v in exact_]))
    assert (d == expected).all()


@pytest.mark.parametrize("type_", ["f16", "bf16"])
def test_signs_of_halves(type_):
    bits = np.arange(1 << 16, dtype="u2")[::7].copy()
    nan = (bits & 0x7FFF) > (0x7C00 if type_ == "f16" else 0x7F80)
    negated = compute(f"neg.{type_} d, a;", "u2", a=bits)
    magnitude = compute(f"abs.{type_} d, a;", "u2", a=bits)
    assert (negated[~nan] == (bits ^ 0x8000)[~nan]).all()
    assert (magnitude[~nan] == (bits & 0x7FFF)[~nan]).all()


def test_functions_of_halves_round_once():
    a = floats(F16, 1)
    for name, rule in (("tanh", np.tanh), ("ex2", np.exp2)):
        d = compute(f"{name}.approx.f16 d, a;", F16, a=a)
        assert same(d, rule(a.astype(F64)).astype(F16))
    bits = floats(F32, 2).view("u4") >> 16
    d = compute("tanh.approx.bf16 d, a;", "u2", a=bits.astype("u2"))
    assert same(from_bf16(d), from_bf16(to_bf16(np.tanh(from_bf16(bits).astype(F64)))))


@pytest.mark.parametrize("type_", ["f16", "bf16"])
def test_mixed_precision_widens_the_halves(type_):
    c = floats(F32, 3, 400)
    if type_ == "f16":
        a, b = (floats(F16, seed, 400) for seed in (1, 2))
        x, y = a.astype(F32), b.astype(F32)
    else:
        a, b = ((floats(F32, seed, 400).view("u4") >> 16).astype("u2") for seed in (1, 2))
        x, y = from_bf16(a), from_bf16(b)
    text = f"""add.rz.f32.{type_} d, a, c; sub.rn.sat.f32.{type_} e, a, c;
               fma.rn.f32.{type_} f, a, b, c;"""
    d, e, f = execute(text, dict.fromkeys("def", F32), a=a, b=b, c=c)
    assert same(d, reference("add", "rz", x, c, c, F32))
    difference = x - c
    clamped = np.where(np.isnan(difference), F32(0), np.clip(difference, F32(0), F32(1)))
    assert (e == clamped).all()
    assert same(f, reference("fma", "rn", x, y, c, F32))


def test_decimal_constants_are_rounded_to_f32():
    a = floats(F32, 1, 64)
    assert same(compute("add.f32 d, a, 0.1;", F32, a=a), a + F32(0.1))


def test_gross_approximations_of_f64_are_of_the_upper_halves():
    a = np.abs(floats(F64, 1))

    def upper(x: np.ndarray) -> np.ndarray:
        kept = (x.view("u8") & ~np.uint64(0xFFFFFFFF)).view(F64)
        return np.where(np.abs(kept) < np.finfo(F64).tiny, np.copysign(0, kept), kept)

    with np.errstate(all="ignore"):
        assert same(compute("rcp.approx.ftz.f64 d, a;", F64, a=a), upper(1 / upper(a)))
        root = upper(1 / np.sqrt(upper(a)))
        assert same(compute("rsqrt.approx.ftz.f64 d, a;", F64, a=a), root)
        assert same(compute("rsqrt.approx.f64 d, a;", F64, a=a), 1 / np.sqrt(a))


@pytest.mark.parametrize("relu", ["", ".relu"])
@pytest.mark.parametrize("type_", ["f16", "bf16"])
def test_what_lies_outside_of_a_tensor_makes_a_fused_sum_zero(type_, relu):
    random = np.random.default_rng(5)
    a, b, c = (random.integers(0, 1 << 16, 512, dtype="u2") for _ in range(3))
    outside = random.random((3, 512)) < 0.2
    for operand, where in zip((a, b, c), outside, strict=True):
        operand[where] = 0xFFFF
    d = compute(f"fma.rn.oob{relu}.{type_} d, a, b, c;", "u2", a=a, b=b, c=c)
    plain = compute(f"fma.rn{relu}.{type_} d, a, b, c;", "u2", a=a, b=b, c=c)
    assert same(d, np.where(outside.any(0), 0, plain).astype("u2"))
