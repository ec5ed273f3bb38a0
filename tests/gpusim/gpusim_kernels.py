# SPDX-License-Identifier: MIT
"""One PTX instruction, or a few, on arrays: every thread has an element of each operand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import ts_gpusim

BLOCK = 64
HEADER = ".version 9.0\n.target sm_100a\n.address_size 64\n"


def launch(ptx: str, *arguments: object, threads: int = 32, **options: object) -> None:
    """The kernel `k` of a module without header, on one CTA."""
    options = {"grid": (1, 1, 1), "block": (threads, 1, 1)} | options
    with ts_gpusim.device("sm_100a"):
        ts_gpusim.launch_ptx(HEADER + ptx, "k", arguments=list(arguments), **options)


def execute(
    text: str,
    results: dict[str, object],
    registers: dict[str, str] | None = None,
    **sources: np.ndarray,
) -> list[np.ndarray]:
    """What `text` leaves in the registers that `results` names, with the dtype of each.

    `sources`: what the threads have in the registers of these names; bool ones are predicates.
    `registers`: types of registers, such as b64, that their array does not tell.
    """
    (count,) = {source.size for source in sources.values()}
    outputs = {name: np.zeros(count, dtype) for name, dtype in results.items()}
    arrays = {**sources, **outputs}
    declared = {name: _register_type(array) for name, array in arrays.items()} | (registers or {})
    loads = "\n".join(_load(name, sources[name], declared[name]) for name in sources)
    stores = "\n".join(_store(name, outputs[name], declared[name]) for name in outputs)
    parameters = ", ".join(f".param .u64 p_{name}" for name in arrays)
    declarations = "\n".join(f".reg .{type_} {name};" for name, type_ in declared.items())
    ptx = f"""{HEADER}
    .visible .entry k({parameters})
    {{
        .reg .pred %outside; .reg .b16 %flag; .reg .b32 %t<4>; .reg .b64 %at;
        {declarations}
        mov.u32 %t0, %tid.x;
        mov.u32 %t1, %ctaid.x;
        mad.lo.u32 %t0, %t1, {BLOCK}, %t0;
        setp.ge.u32 %outside, %t0, {count};
        @%outside exit;
        {loads}
        {text}
        {stores}
        ret;
    }}"""
    grid = (-(-count // BLOCK), 1, 1)
    contiguous = [np.ascontiguousarray(array).view(_raw(array)) for array in sources.values()]
    contiguous += [array.view(_raw(array)) for array in outputs.values()]
    with ts_gpusim.device("sm_100a"):
        ts_gpusim.launch_ptx(ptx, "k", grid, (BLOCK, 1, 1), contiguous)
    return list(outputs.values())


def compute(text: str, dtype: object, **sources: np.ndarray) -> np.ndarray:
    """What `text` leaves in register d."""
    (result,) = execute(text, {"d": dtype}, **sources)
    return result


def _raw(array: np.ndarray) -> np.dtype:
    return np.dtype(f"u{array.dtype.itemsize}")


def _register_type(array: np.ndarray) -> str:
    return "pred" if array.dtype == bool else f"b{max(8 * array.dtype.itemsize, 16)}"


def _address(name: str, array: np.ndarray) -> str:
    return f"ld.param.u64 %at, [p_{name}];\nmad.wide.u32 %at, %t0, {array.dtype.itemsize}, %at;"


def _load(name: str, array: np.ndarray, type_: str) -> str:
    width = 8 * array.dtype.itemsize
    if type_ == "pred":
        return f"{_address(name, array)}\nld.u8 %flag, [%at];\nsetp.ne.u16 {name}, %flag, 0;"
    return f"{_address(name, array)}\nld.global.u{width} {name}, [%at];"


def _store(name: str, array: np.ndarray, type_: str) -> str:
    width = 8 * array.dtype.itemsize
    if type_ == "pred":
        return f"{_address(name, array)}\nselp.u16 %flag, 1, 0, {name};\nst.u8 [%at], %flag;"
    return f"{_address(name, array)}\nst.global.u{width} [%at], {name};"


# Numbers to compute with.

_EXTREME_FLOATS = {
    np.dtype(np.float16): (65504.0, 6.1e-5, 6e-8, 2048.0, 0.33325),
    np.dtype(np.float32): (3.4028235e38, 1.1754944e-38, 1e-45, 16777216.0, 1 / 3),
    np.dtype(np.float64): (1.7976931348623157e308, 2.2250738585072014e-308, 5e-324, 2.0**53, 1 / 3),
}


def integers(dtype: object, seed: int, count: int = 1024) -> np.ndarray:
    """Random bits, few of them, and the numbers at the ends."""
    random = np.random.default_rng(seed)
    info = np.iinfo(np.dtype(dtype))
    anything = random.integers(info.min, info.max, count, dtype=dtype, endpoint=True)
    small = anything >> random.integers(0, info.bits, count).astype(dtype)
    ends = np.array([0, 1, 2, info.max, info.max - 1, info.min, info.min + 1], dtype)
    kind = random.integers(0, 3, count)
    return np.choose(kind, [anything, small, random.choice(ends, count)]).astype(dtype)


def floats(dtype: object, seed: int, count: int = 1024) -> np.ndarray:
    """Random bits, random numbers of like size, and zeros, infinities, NaN, subnormal numbers."""
    random = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    bits = random.integers(0, 1 << 8 * dtype.itemsize, count, dtype=f"u{dtype.itemsize}")
    anything = bits.view(dtype)
    near = random.standard_normal(count).astype(dtype)
    special = [0.0, 1.0, 2.0, 0.5, 1.5, 3.0, np.inf, np.nan, *_EXTREME_FLOATS[dtype]]
    chosen = random.choice(np.array(special, dtype), count) * random.choice([1, -1], count)
    kind = random.integers(0, 3, count)
    return np.choose(kind, [anything, near, chosen.astype(dtype)]).astype(dtype)


def same(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Bit by bit, but that one NaN is as good as another. Shows the first difference."""
    assert actual.dtype == expected.dtype, (actual.dtype, expected.dtype)
    differs = actual.view(_raw(actual)) != expected.view(_raw(expected))
    if actual.dtype.kind == "f":
        differs &= ~(np.isnan(actual) & np.isnan(expected))
    if differs.any():
        first = int(np.flatnonzero(differs)[0])
        print(f"{differs.sum()} differ, first {first}: {actual[first]!r}, not {expected[first]!r}")
    return not differs.any()


# Exact arithmetic, then one rounding.


def rounded(value: Fraction, mantissa: int, least_exponent: int, rounding: str) -> Fraction:
    """To a format with so many bits after the first, whose normal numbers begin at
    2**least_exponent; no number is too large."""
    if value == 0:
        return value
    negative, magnitude = value < 0, abs(value)
    exponent = max(_exponent(magnitude), least_exponent)
    unit = Fraction(2) ** (exponent - mantissa)
    whole, rest = divmod(magnitude, unit)
    away = {
        "rn": rest * 2 > unit or (rest * 2 == unit and whole % 2 == 1),
        "rz": False,
        "rm": negative and rest > 0,
        "rp": not negative and rest > 0,
    }[rounding]
    magnitude = (whole + away) * unit
    return -magnitude if negative else magnitude


def _exponent(magnitude: Fraction) -> int:
    guess = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    return guess if Fraction(2) ** guess <= magnitude else guess - 1


def round_to(value: Fraction, dtype: object, rounding: str, zero_sign: float = 1.0) -> np.generic:
    """An exact number as numpy's; `zero_sign` is the sign of an exact zero."""
    info = np.finfo(np.dtype(dtype))
    if value == 0:
        return np.copysign(info.dtype.type(0), info.dtype.type(zero_sign))
    near = rounded(value, int(info.nmant), int(info.minexp), rounding)
    sign = info.dtype.type(-1 if value < 0 else 1)
    if abs(near) <= Fraction(float(info.max)):
        return np.copysign(info.dtype.type(float(abs(near))), sign)
    inward = rounding == "rz" or rounding == ("rp" if value < 0 else "rm")
    return np.copysign(info.max if inward else info.dtype.type(np.inf), sign)
