# SPDX-License-Identifier: MIT
"""tensormap.replace and tensormap.cp_fenceproxy (PTX ISA 9.7.9.26, 9.7.13.16)."""

from __future__ import annotations

from ts_gpusim.decode.builder import Builder
from ts_gpusim.decode.fields import immediate, narrow, type_of
from ts_gpusim.ptx.syntax import Immediate, Instruction

_SHARED = 1
_DIMENSIONS = 5
_BYTES = 128


def tensor_map(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    if modifiers[0] == "cp_fenceproxy":
        to, from_, size = instruction.operands
        if immediate(builder, size) != _BYTES:
            raise builder.error(f"{size} bytes are copied, but a tensor map has {_BYTES}")
        places = [builder.address(to), builder.address(from_)]
        return builder.step("tensormap.cp_fenceproxy", places, modifiers=narrow(places[1]))
    field = modifiers[2]
    address, *ordinal, value = instruction.operands
    number = ordinal[0] if ordinal else Immediate(0)
    if isinstance(number, Immediate) and not 0 <= number.value < _DIMENSIONS:
        raise builder.error(f"dimension {number.value} is not 0 to {_DIMENSIONS - 1}")
    type_ = type_of(instruction)
    given = builder.source(value, type_)
    places = [builder.address(address), builder.source(number, "u32")]
    places.append(given if type_ == "b64" else builder.fitted(given, 8))
    flags = narrow(places[0]) | (_SHARED if "shared::cta" in modifiers else 0)
    builder.step(f"tensormap.replace.{field}", places, modifiers=flags)
