# SPDX-License-Identifier: MIT
"""ldmatrix, stmatrix and movmatrix (PTX ISA 9.7.14.5.15 to 9.7.14.5.17)."""

from __future__ import annotations

from ts_gpusim.decode.builder import Builder
from ts_gpusim.decode.fields import Decode, narrow
from ts_gpusim.ptx.syntax import Instruction

_SHARED = 1
_COUNT_SHIFT = 8
_NAMED = ("m8n8", "m8n16", "m16n16", "m16n8", "trans", "b6x16_p32", "b4x16_p64")


def _handler(instruction: Instruction) -> str:
    return ".".join((instruction.opcode, *(m for m in instruction.modifiers if m in _NAMED)))


def _access(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    loads = instruction.opcode == "ldmatrix"
    registers, address = instruction.operands if loads else instruction.operands[::-1]
    elements = builder.vector(registers)
    matrices = next(int(m[1]) for m in modifiers if m in ("x1", "x2", "x4"))
    wanted = 2 * matrices if "m16n16" in modifiers else matrices
    if len(elements) != wanted:
        raise builder.error(f"{len(elements)} registers are given, but the matrices need {wanted}")
    place = builder.result if loads else builder.source
    places = [place(element, "b32") for element in elements]
    places.append(builder.address(address))
    flags = matrices << _COUNT_SHIFT | narrow(places[-1])
    flags |= _SHARED if any(m.startswith("shared") for m in modifiers) else 0
    builder.step(_handler(instruction), places, modifiers=flags)


def _transpose(builder: Builder, instruction: Instruction) -> None:
    destination, source = instruction.operands
    places = [builder.result(destination, "b32"), builder.source(source, "b32")]
    builder.step(_handler(instruction), places)


MATRIX_ACCESSES: dict[str, Decode] = {
    "ldmatrix": _access,
    "stmatrix": _access,
    "movmatrix": _transpose,
}
