# SPDX-License-Identifier: MIT
"""mov and cvt (PTX ISA 9.7.9.3, 9.7.9.4, 9.7.9.21, 9.7.9.22)."""

from __future__ import annotations

from ts_gpusim.decode.builder import Builder, Place
from ts_gpusim.decode.fields import (
    CVT_FTZ,
    INTEGERS,
    ROUNDINGS,
    SIGNED,
    Decode,
    bits_of,
    type_of,
)
from ts_gpusim.decode.registers import WIDTH
from ts_gpusim.ptx.syntax import Instruction, Operand, Register

_WHOLE = {"rni": 0, "rzi": 1, "rmi": 2, "rpi": 3}


def _mov(builder: Builder, instruction: Instruction) -> None:
    type_ = type_of(instruction)
    destination, source = instruction.operands
    parts = builder.vector(destination)
    pieces = builder.vector(source)
    width = builder.width(type_)
    if len(parts) > 1:
        part = width // len(parts)
        places = [builder.result(p, f"b{8 * part}") for p in parts]
        whole = builder.source(pieces[0], type_)
        return builder.step(f"split.{8 * width}.{8 * part}", [*places, whole])
    if len(pieces) > 1:
        part = width // len(pieces)
        places = [builder.source(p, f"b{8 * part}") for p in pieces]
        whole = builder.result(parts[0], type_)
        return builder.step(f"join.{8 * part}.{8 * width}", [whole, *places])
    places = [builder.result(parts[0], type_), builder.source(pieces[0], type_)]
    builder.step(f"mov.{bits_of(type_)}", places)


_CVT_RELU, _CVT_SATFINITE, _CVT_SAT, _CVT_WHOLE = 4, 8, 32, 64
_CVT_FLAGS = {
    "relu": _CVT_RELU, "satfinite": _CVT_SATFINITE, "ftz": CVT_FTZ, "sat": _CVT_SAT,
    **ROUNDINGS,
    **{name: _CVT_WHOLE | rounding for name, rounding in _WHOLE.items()},
}  # fmt: skip


def _container(type_: str) -> int:
    """Bytes of the register that a conversion reads or writes."""
    return 2 if type_ in ("u8", "s8") else WIDTH[type_]


def _cvt(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    if modifiers[0] == "pack":
        return _cvt_pack(builder, instruction)
    to, from_ = modifiers[-2:]
    destination, *sources = instruction.operands
    flags = 0
    name = f"cvt.{to}.{from_}"
    for modifier in modifiers[:-2]:
        if modifier == "rna":
            name = f"cvt.rna.{to}.{from_}"
        elif modifier in _CVT_FLAGS:
            flags |= _CVT_FLAGS[modifier]
        else:
            raise builder.not_executed(f".{modifier}")
    for type_ in (to, from_):
        builder.width(type_)
    places = [_cvt_source(builder, source, from_) for source in sources]
    # The register of the result may be wider than its type.
    width = _container(to)
    given = builder.width(destination.type) if isinstance(destination, Register) else width
    if given == width:
        result = builder.result(destination, f"b{8 * width}")
        return builder.step(name, [result, *places], modifiers=flags)
    if given < width or to not in INTEGERS:
        raise builder.error(f"{destination} does not have the width of .{to}: declare another")
    narrow = builder.temporary(width)
    builder.step(name, [narrow, *places], modifiers=flags)
    sign = "s" if to in SIGNED else "u"
    widened = [builder.result(destination, f"b{8 * given}"), narrow]
    builder.step(f"cvt.{sign}{8 * given}.{sign}{8 * width}", widened)


def _cvt_source(builder: Builder, source: Operand, type_: str) -> Place:
    width = _container(type_)
    if isinstance(source, Register) and WIDTH[source.type] > width:
        place = Place(builder.registers.register(source), 0, WIDTH[source.type])
        return builder.fitted(place, width)
    return builder.source(source, "u16" if type_ in ("u8", "s8") else type_)


def _cvt_pack(builder: Builder, instruction: Instruction) -> None:
    """Two s32, clamped, and what fills the upper bits if there is room."""
    destination, a, b, *rest = instruction.operands
    places = [builder.result(destination, "b32")]
    places += [builder.source(a, "s32"), builder.source(b, "s32")]
    places.append(builder.source(rest[0], "b32") if rest else builder.constant(0, 4))
    builder.step(f"cvt.pack.{instruction.modifiers[2]}", places)


CONVERSIONS: dict[str, Decode] = {
    "mov": _mov,
    "cvt": _cvt,
}
