# SPDX-License-Identifier: MIT
"""cvt and packing moves (PTX ISA 9.7.9.21, 9.7.9.22, 9.7.9.4), against numpy and torch."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from gpusim_kernels import compute, execute, floats, integers, round_to, rounded, same

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

INTEGERS = {f"{s}{b}": f"{'i' if s == 's' else 'u'}{b // 8}" for s in "us" for b in (8, 16, 32, 64)}
FLOATS = {"f16": np.float16, "f32": np.float32, "f64": np.float64}
ROUNDINGS = ("rn", "rz", "rm", "rp")
WHOLE = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def range_of(type_: str) -> tuple[int, int]:
    info = np.iinfo(INTEGERS[type_])
    return int(info.min), int(info.max)


def container(type_: str) -> str:
    """The dtype of a register: 8-bit numbers stand in 16 bits."""
    return INTEGERS[type_].replace("1", "2") if type_.endswith("8") else INTEGERS[type_]


@pytest.mark.parametrize("from_", INTEGERS)
def test_integers_are_truncated_extended_or_clamped(from_):
    wide = integers("i8", 1)  # the source is the low part of a wider register
    source = wide.astype(INTEGERS[from_])
    for to, dtype in INTEGERS.items():
        register = container(to)
        d = execute(f"cvt.{to}.{from_} d, a;", {"d": register}, a=wide)[0]
        assert same(d, source.astype(dtype).astype(register)), to
        low, high = range_of(to)
        clamped = [max(low, min(high, int(v))) for v in source]
        d = execute(f"cvt.sat.{to}.{from_} d, a;", {"d": register}, a=wide)[0]
        assert same(d, np.array(clamped, dtype).astype(register)), to


def test_a_result_is_extended_to_a_wider_register():
    a = integers("i4", 1)
    for to, dtype in INTEGERS.items():
        if not to.endswith("64"):
            wide = "i8" if to[0] == "s" else "u8"
            d = compute(f"cvt.{to}.s32 d, a;", wide, a=a)
            assert same(d, a.astype(dtype).astype(wide)), to


def whole_numbers(a: np.ndarray, rule, to: str, from_: str) -> np.ndarray:
    """Clamped; PTX ISA 9.7.9.21 says what NaN becomes."""
    low, high = range_of(to)
    bits = int(to[1:])
    nan = 0 if from_ != "f64" and bits < 64 else 1 << (bits - 1)
    values = [
        nan if math.isnan(x) else max(low, min(high, int(rule(x) if math.isfinite(x) else
                                                         math.copysign(1e300, x))))
        for x in a.astype(np.float64).tolist()
    ]  # fmt: skip
    unsigned = np.array([v % (1 << bits) for v in values], f"u{bits // 8}")
    return unsigned.view(INTEGERS[to]).astype(container(to))


@pytest.mark.parametrize("to", INTEGERS)
@pytest.mark.parametrize("from_", FLOATS)
def test_floats_are_rounded_to_integers_and_clamped(from_, to):
    a = floats(FLOATS[from_], 1, 600)
    a[::3] = (np.random.default_rng(2).standard_normal(200) * 200).astype(a.dtype)
    a[1::6] = np.arange(100).astype(a.dtype) / 2  # ties
    for rounding, rule in WHOLE.items():
        d = compute(f"cvt.{rounding}.{to}.{from_} d, a;", container(to), a=a)
        assert same(d, whole_numbers(a, rule, to, from_)), rounding


def test_ftz_makes_subnormal_numbers_zero_before_they_are_rounded():
    a = np.array([1e-40, -1e-40, 1e-30], np.float32)
    d, e = execute("cvt.rpi.ftz.s32.f32 d, a; cvt.rpi.s32.f32 e, a;", {"d": "i4", "e": "i4"}, a=a)
    assert d.tolist() == [0, 0, 1]
    assert e.tolist() == [1, 0, 1]


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("to", FLOATS)
def test_integers_are_rounded_to_floats(to, rounding):
    for from_, dtype in INTEGERS.items():
        a = integers(dtype, 1, 300)
        d = compute(f"cvt.{rounding}.{to}.{from_} d, a;", FLOATS[to], a=a.astype(container(from_)))
        expected = [round_to(Fraction(int(v)), FLOATS[to], rounding) for v in a]
        assert same(d, np.array(expected, FLOATS[to])), from_


def narrowed(a: np.ndarray, to: object, rounding: str) -> np.ndarray:
    result = a.astype(to)
    for i, x in enumerate(a.tolist()):
        if math.isfinite(x):
            result[i] = round_to(Fraction(x), to, rounding, math.copysign(1, x))
    return result


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("from_", "to"), [("f64", "f32"), ("f64", "f16"), ("f32", "f16")])
def test_floats_are_rounded_to_narrower_ones(from_, to, rounding):
    a = floats(FLOATS[from_], 1, 600)
    with np.errstate(all="ignore"):
        a[::4] = floats(FLOATS[to], 2, 150) * a.dtype.type(1 + 2.0**-11)
    d = compute(f"cvt.{rounding}.{to}.{from_} d, a;", FLOATS[to], a=a)
    assert same(d, narrowed(a, FLOATS[to], rounding))


@pytest.mark.parametrize(("from_", "to"), [("f16", "f32"), ("f16", "f64"), ("f32", "f64")])
def test_floats_are_widened_as_they_are(from_, to):
    a = np.arange(1 << 16, dtype="u2").view("f2") if from_ == "f16" else floats("f4", 1)
    assert same(compute(f"cvt.{to}.{from_} d, a;", FLOATS[to], a=a), a.astype(FLOATS[to]))


@pytest.mark.parametrize("type_", FLOATS)
def test_floats_are_rounded_to_whole_numbers(type_):
    a = floats(FLOATS[type_], 1)
    a[::2] = (np.random.default_rng(2).integers(-40, 40, a[::2].size) / 2).astype(a.dtype)
    for rounding, rule in WHOLE.items():
        d = compute(f"cvt.{rounding}.{type_}.{type_} d, a;", a.dtype, a=a)
        assert same(d, rule(a)), rounding


def test_sat_and_ftz_of_f32():
    a = floats("f4", 1)
    tiny = np.finfo(np.float32).tiny
    flushed = np.where(np.abs(a) < tiny, np.copysign(np.float32(0), a), a)
    assert same(compute("cvt.ftz.f32.f32 d, a;", "f4", a=a), flushed)
    d = compute("cvt.sat.f32.f32 d, a;", "f4", a=a)
    assert (d == np.where(np.isnan(a), np.float32(0), np.clip(a, 0, 1))).all()
    d = compute("cvt.rn.sat.f32.s32 d, a;", "f4", a=np.array([-5, 0, 1, 7], "i4"))
    assert d.tolist() == [0, 0, 1, 1]
    whole = np.rint(flushed)
    d = compute("cvt.rni.ftz.sat.f32.f32 d, a;", "f4", a=a)
    assert (d == np.where(np.isnan(a), np.float32(0), np.clip(whole, 0, 1))).all()


# Formats that numpy lacks: exponent, mantissa, greatest finite number.

NARROW = {
    "bf16": (torch.bfloat16, 7, -126), "f16": (torch.float16, 10, -14),
    "e4m3": (torch.float8_e4m3fn, 3, -6), "e5m2": (torch.float8_e5m2, 2, -14),
}  # fmt: skip


def by_torch(
    a: np.ndarray, format_: str, satfinite: bool = False, relu: bool = False
) -> np.ndarray:
    """As bits, rounded to nearest even; `satfinite`: too large becomes the greatest number."""
    dtype = NARROW[format_][0]
    most = torch.finfo(dtype).max
    tensor = torch.from_numpy(a.astype("f4"))
    if relu:
        tensor = torch.where(tensor < 0, torch.zeros(()), tensor)
    if satfinite:
        tensor = torch.where(tensor.isnan(), tensor, tensor.clamp(-most, most))
    bits = tensor.to(dtype).view(torch.uint8 if dtype.itemsize == 1 else torch.uint16).numpy()
    nan = {"bf16": 0x7FFF, "f16": 0x7FFF, "e4m3": 0x7F, "e5m2": 0x7F}[format_]
    return np.where(np.isnan(a), nan, bits).astype("u4")


def widened(bits: np.ndarray, format_: str) -> np.ndarray:
    dtype = NARROW[format_][0]
    raw = torch.from_numpy(bits.astype("u1" if dtype.itemsize == 1 else "u2"))
    return raw.view(dtype).float().numpy()


def numbers_near(format_: str, seed: int) -> np.ndarray:
    """f32 with special values, with those of the narrow format, and with ties between them."""
    _, mantissa, _ = NARROW[format_]
    a = floats("f4", seed, 1200)
    random = np.random.default_rng(seed)
    size = NARROW[format_][0].itemsize
    exact = widened(random.integers(0, 1 << 8 * size, 400), format_)
    with np.errstate(all="ignore"):
        a[::3] = exact
        a[1::6] = exact[::2] * np.float32(1 + 2.0 ** -(mantissa + 1))
    return a


@pytest.mark.parametrize("relu", ["", ".relu"])
@pytest.mark.parametrize("satfinite", ["", ".satfinite"])
@pytest.mark.parametrize("format_", ["f16", "bf16"])
def test_f32_to_halves(format_, satfinite, relu):
    a, b = (numbers_near(format_, seed) for seed in (1, 2))
    options = {"satfinite": bool(satfinite), "relu": bool(relu)}
    high, low = (by_torch(x, format_, **options) for x in (a, b))
    d = compute(f"cvt.rn{relu}{satfinite}.{format_}.f32 d, a;", "u2", a=a)
    assert same(d, high.astype("u2"))
    d = compute(f"cvt.rn{relu}{satfinite}.{format_}x2.f32 d, a, b;", "u4", a=a, b=b)
    assert same(d, high << 16 | low)


@pytest.mark.parametrize("format_", ["f16", "bf16"])
def test_f32_to_halves_towards_zero(format_):
    _, mantissa, least = NARROW[format_]
    a = numbers_near(format_, 1)
    most = torch.finfo(NARROW[format_][0]).max
    expected = [
        math.copysign(min(abs(float(rounded(Fraction(x), mantissa, least, "rz"))), most), x)
        if math.isfinite(x)
        else x
        for x in a.tolist()
    ]
    d = compute(f"cvt.rz.{format_}.f32 d, a;", "u2", a=a)
    assert same(d, by_torch(np.array(expected), format_).astype("u2"))


@pytest.mark.parametrize("relu", ["", ".relu"])
@pytest.mark.parametrize("format_", ["e4m3", "e5m2"])
def test_f32_and_halves_to_eight_bits(format_, relu):
    a, b = (numbers_near(format_, seed) for seed in (1, 2))
    options = {"satfinite": True, "relu": bool(relu)}
    expected = by_torch(a, format_, **options) << 8 | by_torch(b, format_, **options)
    d = compute(f"cvt.rn.satfinite{relu}.{format_}x2.f32 d, a, b;", "u2", a=a, b=b)
    assert same(d, expected.astype("u2"))
    for half in ("f16", "bf16"):
        pair = by_torch(a, half) << 16 | by_torch(b, half)
        x, y = (widened(by_torch(v, half), half) for v in (a, b))
        expected = by_torch(x, format_, **options) << 8 | by_torch(y, format_, **options)
        d = compute(f"cvt.rn.satfinite{relu}.{format_}x2.{half}x2 d, a;", "u2", a=pair)
        assert same(d, expected.astype("u2"))


@pytest.mark.parametrize("format_", ["e4m3", "e5m2"])
def test_every_pair_of_eight_bits_to_halves(format_):
    a = np.arange(1 << 16, dtype="u2")
    d = compute(f"cvt.rn.f16x2.{format_}x2 d, a;", "u4", a=a).view("f2").reshape(-1, 2)
    low, high = (widened(a >> shift & 0xFF, format_).astype("f2") for shift in (0, 8))
    assert same(d[:, 0].copy(), low)
    assert same(d[:, 1].copy(), high)


@pytest.mark.parametrize(
    ("format_", "mantissa", "least", "most"), [("e2m3", 3, 0, 7.5), ("e3m2", 2, -2, 28.0)]
)
def test_six_bits_there_and_back(format_, mantissa, least, most):
    a, b = (np.random.default_rng(seed).standard_normal(512).astype("f4") * 8 for seed in (1, 2))
    text = f"cvt.rn.satfinite.{format_}x2.f32 e, a, b; cvt.rn.f16x2.{format_}x2 d, e;"
    _, d = execute(text, {"e": "u2", "d": "u4"}, a=a, b=b)
    near = [
        [max(-most, min(most, float(rounded(Fraction(x), mantissa, least, "rn")))) for x in v]
        for v in (b.tolist(), a.tolist())
    ]
    assert (d.view("f2").reshape(-1, 2) == np.array(near).T).all()


def test_four_bits_there_and_back():
    values = np.array([0, 0.25, 0.26, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6, 100, -0.3, -5.1], "f4")
    expected = [0, 0, 0.5, 1, 1, 2, 2, 4, 4, 6, 6, -0.5, -6]
    text = """.reg .b8 e; cvt.rn.satfinite.e2m1x2.f32 e, a, a; cvt.rn.f16x2.e2m1x2 d, e;"""
    d = compute(text, "u4", a=values).view("f2").reshape(-1, 2)
    assert (d[:, 0] == expected).all()
    assert (d[:, 1] == expected).all()


def test_tf32():
    a = floats("f4", 1)
    bits = a.view("u4")
    finite = np.isfinite(a)
    away = np.where(finite, (bits + 0x1000) & ~np.uint32(0x1FFF), bits).view("f4")
    d = compute("cvt.rna.tf32.f32 d, a;", "u4", a=a)
    assert same(d.view("f4"), away)
    towards_zero = np.where(finite, bits & ~np.uint32(0x1FFF), bits).view("f4")
    assert same(compute("cvt.rz.tf32.f32 d, a;", "u4", a=a).view("f4"), towards_zero)
    even = np.where(finite, (bits + 0xFFF + (bits >> 13 & 1)) & ~np.uint32(0x1FFF), bits)
    assert same(compute("cvt.rn.tf32.f32 d, a;", "u4", a=a).view("f4"), even.view("f4"))
    d = compute("cvt.rn.relu.tf32.f32 d, a;", "u4", a=a).view("f4")
    assert same(np.abs(d), np.abs(np.where(a < 0, np.float32(0), even.view("f4"))))
    most = np.uint32(0x7F7FE000).view("f4")
    d = compute("cvt.rna.satfinite.tf32.f32 d, a;", "u4", a=a).view("f4")
    assert same(d, np.where(np.isinf(away), np.copysign(most, away), away))


@pytest.mark.parametrize("type_", ["u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2"])
def test_integers_are_clamped_and_packed(type_):
    bits = int(type_[1:])
    low = -(1 << (bits - 1)) if type_[0] == "s" else 0
    a, b, c = integers("i4", 1), integers("i4", 2), integers("u4", 3)
    fields = [
        np.clip(v.astype("i8"), low, low + (1 << bits) - 1) & ((1 << bits) - 1) for v in (a, b)
    ]
    upper = 0 if bits == 16 else c.astype("u8") << np.uint64(2 * bits)
    expected = (fields[0] << bits | fields[1]).astype("u8") | upper
    kind, third = ("s32", "") if bits == 16 else ("s32.b32", ", c")
    d = compute(f"cvt.pack.sat.{type_}.{kind} d, a, b{third};", "u4", a=a, b=b, c=c)
    assert same(d, expected.astype("u4"))


@pytest.mark.parametrize(("whole", "part"), [(32, 16), (64, 32), (64, 16), (16, 8), (32, 8)])
def test_moves_pack_and_unpack_the_lowest_first(whole, part):
    a = integers(f"u{whole // 8}", 1)
    count = whole // part
    names = [f"r{i}" for i in range(count)]
    registers = f".reg .b{part} {', '.join(names)};"
    swapped = "{" + ", ".join(reversed(names)) + "}"
    text = f"{registers} mov.b{whole} {{{', '.join(names)}}}, a; mov.b{whole} d, {swapped};"
    expected = a.view(f"u{part // 8}").reshape(-1, count)[:, ::-1].copy().view(a.dtype)[:, 0]
    assert same(compute(text, a.dtype, a=a), expected)


def test_a_move_drops_what_goes_to_the_sink():
    a = integers("u8", 1)
    d = compute("mov.b64 {_, d}, a;", "u4", a=a)
    assert same(d, (a >> np.uint64(32)).astype("u4"))


@pytest.mark.parametrize("satfinite", ["", ".satfinite"])
@pytest.mark.parametrize("rounding", ["rz", "rp"])
def test_scales_are_rounded_to_powers_of_two(rounding, satfinite):
    a, b = floats("f4", 1), floats("f4", 2)

    def scale(x: np.ndarray) -> np.ndarray:
        # The smallest is 2^-127: what is less becomes it, too.
        with np.errstate(divide="ignore"):
            exponent = np.log2(np.abs(x.astype("f8")))
        whole = np.floor(exponent) if rounding == "rz" else np.ceil(exponent)
        field = np.maximum(whole, -127) + 127
        largest = 254 if satfinite else 255
        return np.where(np.isnan(x), 255, np.minimum(field, largest)).astype("u2")

    d = compute(f"cvt.{rounding}{satfinite}.ue8m0x2.f32 d, a, b;", "u2", a=a, b=b)
    assert same(d, scale(a) << 8 | scale(b))
    halves = (a.view("u4") & 0xFFFF0000) | b.view("u4") >> 16
    d = compute(f"cvt.{rounding}{satfinite}.ue8m0x2.bf16x2 d, a;", "u2", a=halves)
    upper = (halves & 0xFFFF0000).view("f4")
    lower = (halves << 16).view("f4")
    assert same(d, scale(upper) << 8 | scale(lower))


def test_every_scale_to_bf16():
    a = np.arange(1 << 16, dtype="u4").astype("u2")[::7]
    d = compute("cvt.rn.bf16x2.ue8m0x2 d, a;", "u4", a=a)
    for shift in (0, 8):
        field = (a >> shift & 255).astype("f8")
        value = (d >> 2 * shift << 16).astype("u4").view("f4")
        expected = np.where(field == 255, np.nan, 2.0 ** (field - 127)).astype("f4")
        assert same(value, expected)
