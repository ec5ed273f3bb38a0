# SPDX-License-Identifier: MIT
"""Typed instructions back to PTX text, with the names that the parser gave."""

from __future__ import annotations

from ts_gpusim.ptx.syntax import (
    Address,
    Arguments,
    FloatImmediate,
    Immediate,
    Instruction,
    NegatedRegister,
    Operand,
    PredicatePair,
    Sink,
    Symbol,
    Vector,
)


def print_instruction(instruction: Instruction) -> str:
    """One line that parses to the same instruction where its names are declared."""
    guard = ""
    if instruction.guard is not None:
        sign = "!" if instruction.guard.negated else ""
        guard = f"@{sign}{instruction.guard.predicate.name} "
    operands = ", ".join(print_operand(operand) for operand in instruction.operands)
    return f"{guard}{instruction.name} {operands}".rstrip() + ";"


def print_operand(operand: Operand) -> str:
    match operand:
        case Immediate(value):
            return str(value)
        case FloatImmediate(bits, width):
            return f"0f{bits:08X}" if width == 32 else f"0d{bits:016X}"
        case Symbol(name, offset):
            return f"{name}+{offset}" if offset else name
        case Sink():
            return "_"
        case NegatedRegister(register):
            return f"!{register.name}"
        case PredicatePair(first, second):
            return f"{print_operand(first)}|{print_operand(second)}"
        case Vector(elements):
            return "{" + ", ".join(print_operand(element) for element in elements) + "}"
        case Arguments(elements):
            return "(" + ", ".join(print_operand(element) for element in elements) + ")"
        case Address(base, offset, coordinates):
            text = print_operand(base) + (f"+{offset}" if offset else "")
            if coordinates:
                text += ", " + print_operand(Vector(coordinates))
            return f"[{text}]"
        case _:
            return operand.name
