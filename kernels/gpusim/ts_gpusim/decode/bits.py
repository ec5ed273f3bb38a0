# SPDX-License-Identifier: MIT
"""Logic, shifts, bit fields, counts and bytes (PTX ISA 9.7.1.14 to 9.7.1.20, 9.7.8, 9.7.9.7)."""

from __future__ import annotations

from ts_gpusim.decode.builder import SINK, Builder
from ts_gpusim.decode.fields import COMBINATIONS, Decode, bits_of, type_of
from ts_gpusim.ptx.syntax import Instruction, PredicatePair


def _bitwise(builder: Builder, instruction: Instruction) -> None:
    type_ = bits_of(type_of(instruction))
    destination, *sources = instruction.operands
    builder.step(
        f"{instruction.opcode}.{type_}",
        [builder.result(destination, type_), *(builder.source(s, type_) for s in sources)],
    )


def _shift(builder: Builder, instruction: Instruction) -> None:
    type_ = type_of(instruction)
    destination, value, amount = instruction.operands
    places = [builder.result(destination, type_), builder.source(value, type_)]
    builder.step(f"{instruction.opcode}.{type_}", [*places, builder.source(amount, "u32")])


def _words(builder: Builder, instruction: Instruction) -> None:
    """prmt, shf, fns: all operands have 32 bits."""
    name = ".".join((instruction.opcode, *(m for m in instruction.modifiers if m != "b32"), "b32"))
    destination, *sources = instruction.operands
    places = [builder.result(destination, "b32")]
    builder.step(name, places + [builder.source(s, "b32") for s in sources])


def _lop3(builder: Builder, instruction: Instruction) -> None:
    destination, *sources = instruction.operands
    if not isinstance(destination, PredicatePair):
        places = [builder.result(destination, "b32")]
        return builder.step("lop3.b32", places + [builder.source(s, "b32") for s in sources])
    # d|p: p says whether d is not zero, combined with the last operand.
    result = builder.result(destination.first, "b32")
    builder.step("lop3.b32", [result, *(builder.source(s, "b32") for s in sources[:-1])])
    places = [builder.result(destination.second, "pred"), SINK, result, builder.constant(0, 4)]
    places.append(builder.source(sources[-1], "pred"))
    how = COMBINATIONS[instruction.modifiers[0]]
    builder.step("setp.ne.b32", places, modifiers=how)


def _field(builder: Builder, instruction: Instruction) -> None:
    """bfe, bfi: position and length have 32 bits."""
    type_ = type_of(instruction)
    destination, *sources = instruction.operands
    places = [builder.result(destination, type_)]
    places += [builder.source(s, type_) for s in sources[:-2]]
    places += [builder.source(s, "u32") for s in sources[-2:]]
    builder.step(f"{instruction.opcode}.{type_}", places)


def _count(builder: Builder, instruction: Instruction) -> None:
    """popc, clz, bfind: the result has 32 bits."""
    type_ = type_of(instruction)
    destination, source = instruction.operands
    places = [builder.result(destination, "u32"), builder.source(source, type_)]
    shift = ".shiftamt" if "shiftamt" in instruction.modifiers else ""
    builder.step(f"{instruction.opcode}{shift}.{type_}", places)


def _extend(builder: Builder, instruction: Instruction) -> None:
    """szext, whose second source has 32 bits without a sign, and bmsk."""
    type_ = type_of(instruction)
    destination, value, amount = instruction.operands
    places = [builder.result(destination, type_), builder.source(value, type_)]
    builder.step(instruction.name, [*places, builder.source(amount, "u32")])


BITS: dict[str, Decode] = {
    **dict.fromkeys(("and", "or", "xor", "not", "cnot", "brev"), _bitwise),
    **dict.fromkeys(("shl", "shr"), _shift),
    **dict.fromkeys(("prmt", "shf", "fns"), _words),
    **dict.fromkeys(("szext", "bmsk"), _extend),
    "lop3": _lop3,
    **dict.fromkeys(("bfe", "bfi"), _field),
    **dict.fromkeys(("popc", "clz", "bfind"), _count),
}
