# SPDX-License-Identifier: MIT
"""Comparison and selection (PTX ISA 9.7.3.1, 9.7.6, 9.7.7)."""

from __future__ import annotations

from collections.abc import Sequence

from ts_gpusim.decode.builder import SINK, Builder, Place
from ts_gpusim.decode.fields import COMBINATIONS, CVT_FTZ, Decode, bits_of, pair_of, type_of
from ts_gpusim.ptx.syntax import Instruction, Operand

_HALF_ONE = {"f16": 0x3C00, "bf16": 0x3F80}
_COMPARISONS = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


def _setp(builder: Builder, instruction: Instruction) -> None:
    destination, a, b, *rest = instruction.operands
    first, second = pair_of(destination)
    type_ = type_of(instruction)
    results = [builder.result(first, "pred"), builder.result(second, "pred")]
    if type_ not in ("f16x2", "bf16x2"):
        return _compare(builder, instruction, results, a, b, rest)
    # The first predicate is of the low halves, the second of the high ones.
    half = type_.removesuffix("x2")
    sources = [_split_halves(builder, builder.source(o, "b32")) for o in (a, b)]
    for index, result in enumerate(results):
        pair = [_half_as_f32(builder, instruction, source[index], half) for source in sources]
        _compare_places(builder, instruction, [result, SINK], "f32", pair, rest)


def _compare(
    builder: Builder,
    instruction: Instruction,
    results: list[Place],
    a: Operand,
    b: Operand,
    rest: Sequence[Operand],
) -> None:
    """The results: a predicate and its complement."""
    type_ = type_of(instruction)
    sources = [builder.source(a, type_), builder.source(b, type_)]
    if type_ in ("f16", "bf16"):
        sources = [_half_as_f32(builder, instruction, source, type_) for source in sources]
        type_ = "f32"
    elif "ftz" in instruction.modifiers:
        sources = [_flushed(builder, source) for source in sources]
    _compare_places(builder, instruction, results, type_, sources, rest)


def _compare_places(
    builder: Builder,
    instruction: Instruction,
    results: list[Place],
    type_: str,
    sources: list[Place],
    rest: Sequence[Operand],
) -> None:
    modifiers = instruction.modifiers
    comparison = _COMPARISONS.get(modifiers[0], modifiers[0])
    combination = next((c for n, c in COMBINATIONS.items() if n in modifiers), 0)
    combined = [builder.source(rest[0], "pred")] if combination else []
    places = [*results, *sources, *combined]
    builder.step(f"setp.{comparison}.{type_}", places, modifiers=combination)


def _flushed(builder: Builder, source: Place) -> Place:
    flushed = builder.temporary(4)
    builder.step("cvt.f32.f32", [flushed, source], modifiers=CVT_FTZ, always=True)
    return flushed


def _split_halves(builder: Builder, pair: Place) -> list[Place]:
    halves = [builder.temporary(2), builder.temporary(2)]
    builder.step("split.32.16", [*halves, pair], always=True)
    return halves


def _half_as_f32(builder: Builder, instruction: Instruction, half: Place, type_: str) -> Place:
    if "ftz" in instruction.modifiers:
        flushed = builder.temporary(2)
        one = builder.constant(_HALF_ONE["f16"], 2)
        builder.step("mul.ftz.f16", [flushed, half, one], always=True)
        half = flushed
    wide = builder.temporary(4)
    builder.step(f"cvt.f32.{type_}", [wide, half], always=True)
    return wide


_ONES = {"f32": 0x3F800000, **_HALF_ONE}


def _set(builder: Builder, instruction: Instruction) -> None:
    """As setp, and the result all ones (or 1.0) or zero."""
    to = instruction.modifiers[-2]
    destination, a, b, *rest = instruction.operands
    if to.endswith("x2"):
        return _set_pair(builder, instruction)
    predicate = builder.temporary(0)
    _compare(builder, instruction, [predicate, SINK], a, b, rest)
    builder.step(
        f"selp.{bits_of(to)}", [builder.result(destination, to), *_truth(builder, to, predicate)]
    )


def _truth(builder: Builder, type_: str, predicate: Place) -> list[Place]:
    """What set gives in a type for true and for false, and which."""
    width = builder.width(type_)
    true = builder.constant(_ONES.get(type_, (1 << 8 * width) - 1), width)
    return [true, builder.constant(0, width), predicate]


def _set_pair(builder: Builder, instruction: Instruction) -> None:
    half = type_of(instruction).removesuffix("x2")
    destination, a, b, *rest = instruction.operands
    sources = [_split_halves(builder, builder.source(o, "b32")) for o in (a, b)]
    results = []
    for index in range(2):
        pair = [_half_as_f32(builder, instruction, source[index], half) for source in sources]
        predicate = builder.temporary(0)
        _compare_places(builder, instruction, [predicate, SINK], "f32", pair, rest)
        results.append(builder.temporary(2))
        builder.step("selp.b16", [results[-1], *_truth(builder, half, predicate)])
    builder.step("join.16.32", [builder.result(destination, "b32"), *results])


def _testp(builder: Builder, instruction: Instruction) -> None:
    type_ = type_of(instruction)
    destination, source = instruction.operands
    places = [builder.result(destination, "pred"), builder.source(source, type_)]
    builder.step(instruction.name, places)


def _slct(builder: Builder, instruction: Instruction) -> None:
    """The first source where the third is at least zero, else the second."""
    type_, chooser = instruction.modifiers[-2:]
    destination, a, b, c = instruction.operands
    predicate = builder.temporary(0)
    value = builder.source(c, chooser)
    if "ftz" in instruction.modifiers:
        value = _flushed(builder, value)
    builder.step(f"setp.ge.{chooser}", [predicate, SINK, value, builder.constant(0, 4)])
    places = [builder.result(destination, type_)]
    places += [builder.source(a, type_), builder.source(b, type_), predicate]
    builder.step(f"selp.{bits_of(type_)}", places)


def _selp(builder: Builder, instruction: Instruction) -> None:
    type_ = bits_of(type_of(instruction))
    destination, a, b, predicate = instruction.operands
    given = type_of(instruction)
    sources = [builder.source(a, given), builder.source(b, given)]
    places = [builder.result(destination, given), *sources, builder.source(predicate, "pred")]
    builder.step(f"selp.{type_}", places)


COMPARISONS: dict[str, Decode] = {
    "setp": _setp,
    "set": _set,
    "testp": _testp,
    "selp": _selp,
    "slct": _slct,
}
