# SPDX-License-Identifier: MIT
"""mma: a warp multiplies matrices that lie in its registers (PTX ISA 9.7.14.5)."""

from __future__ import annotations

import re

from ts_gpusim.decode.builder import Builder, Place
from ts_gpusim.ptx.syntax import Instruction, Operand

# In the order of machine/matrices.h.
_ELEMENTS = ("f16", "bf16", "tf32", "e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "s8", "u8")
_RESULTS = ("f32", "f16", "s32")
_BYTES = {"f16": 2, "bf16": 2, "tf32": 4, "e4m3": 1, "e5m2": 1, "s8": 1, "u8": 1, "f64": 8}
_COLUMNS = 8
_LANES = 32


def mma(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    if why := _refusal(modifiers):
        raise builder.error(why)
    shape = next(m for m in modifiers if re.fullmatch(r"m\d+n8k\d+", m))
    rows, _, ks = map(int, re.findall(r"\d+", shape))
    result, type_a, type_b, _ = (m for m in modifiers if m in _BYTES or m in _RESULTS)
    d, a, b, c = instruction.operands
    double = type_a == "f64"
    register = 8 if double else 4
    each = register // _BYTES[type_a]
    in_a, in_b = rows * ks // _LANES // each, _COLUMNS * ks // _LANES // each
    in_d = rows * _COLUMNS // _LANES // (2 if result == "f16" else 1)
    of_sum = "b32" if result == "f16" else result
    of_factor = "f64" if double else "b32"
    places = [builder.result(r, of_sum) for r in _registers(builder, "D", d, in_d)]
    places += _sources(builder, "A", a, in_a, of_factor)
    places += _sources(builder, "B", b, in_b, of_factor)
    places += _sources(builder, "C", c, in_d, of_sum)
    flags = rows | ks << 5
    if double:
        return builder.step("mma.f64", places, modifiers=flags)
    flags |= _ELEMENTS.index(type_a) << 11 | _ELEMENTS.index(type_b) << 15
    flags |= _RESULTS.index(result) << 19 | ("satfinite" in modifiers) << 21
    builder.step("mma", places, modifiers=flags)


def _refusal(modifiers: tuple[str, ...]) -> str | None:
    """Why it is not executed, if it is not."""
    if modifiers[0].startswith("sp"):
        return "a sparse mma is not executed; multiply the whole matrix"
    kind = next((m for m in modifiers if m.startswith("kind::")), None)
    if kind is not None:
        return f".{kind} needs sm_120a, which no device here is; use tcgen05.mma"
    if "b1" in modifiers:
        return "an mma of single bits is not executed; use popc and integer arithmetic"
    if "s4" in modifiers or "u4" in modifiers:
        return "an mma of 4-bit integers is not executed; widen them to s8 or u8"
    if "m8n8k4" in modifiers and "f64" not in modifiers:
        return "the four products of an m8n8k4 of f16 are not executed; use m16n8k8"
    return None


def _registers(builder: Builder, name: str, operand: Operand, count: int) -> list[Operand]:
    elements = builder.vector(operand)
    if len(elements) != count:
        raise builder.error(
            f"{len(elements)} registers are given for {name}, but this shape needs {count}"
        )
    return elements


def _sources(builder: Builder, name: str, operand: Operand, count: int, type_: str) -> list[Place]:
    return [builder.source(r, type_) for r in _registers(builder, name, operand, count)]
