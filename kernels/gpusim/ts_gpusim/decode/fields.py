# SPDX-License-Identifier: MIT
"""Parts of an instruction that several families read."""

from __future__ import annotations

from collections.abc import Callable

from ts_gpusim.decode.builder import NARROW_SHARED, Builder, Place
from ts_gpusim.decode.registers import WIDTH
from ts_gpusim.ptx.syntax import Immediate, Instruction, Operand, PredicatePair, Sink

ROUNDINGS = {"rn": 0, "rz": 1, "rm": 2, "rp": 3}
SIGNED = {"s8", "s16", "s32", "s64"}
INTEGERS = SIGNED | {"u8", "u16", "u32", "u64"}

# How setp combines its result with a predicate: the modifiers of its handler.
COMBINATIONS = {"and": 1, "or": 2, "xor": 3}
NEGATED = 4

# Modifier of conversions.
CVT_FTZ = 16

Decode = Callable[[Builder, Instruction], None]


def type_of(instruction: Instruction) -> str:
    return instruction.modifiers[-1]


def bits_of(type_: str) -> str:
    return f"b{8 * WIDTH[type_]}" if type_ != "pred" else "pred"


def pair_of(destination: Operand) -> tuple[Operand, Operand]:
    """`p|q`, or the one that is written and the sink."""
    if isinstance(destination, PredicatePair):
        return destination.first, destination.second
    return destination, Sink()


def narrow(place: Place) -> int:
    return NARROW_SHARED if place.width == 4 else 0


def immediate(builder: Builder, operand: object) -> int:
    if not isinstance(operand, Immediate):
        raise builder.error(f"{operand} must be a constant")
    return operand.value
