# SPDX-License-Identifier: MIT
"""The global and const variables of a module (PTX ISA 5.1.3, 5.1.4 and 5.4.4).

They get host memory when one of the module's kernels is decoded for the first time, and keep it,
and what kernels write there, as those of a module that is loaded once.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from ts_gpusim.ptx.syntax import Module

_ALIGNMENT = 128


@dataclass(frozen=True)
class ModuleVariables:
    addresses: dict[str, int]
    allocations: list[tuple[str, int, int]]  # name, address, bytes
    memory: object  # kept alive


def lay_out(module: Module) -> ModuleVariables:
    variables = [v for v in module.variables.values() if v.space in ("global", "const") and v.size]
    size = 0
    offsets = []
    for variable in variables:
        size = -(-size // variable.align) * variable.align
        offsets.append(size)
        size += variable.size
    memory = ctypes.create_string_buffer(size + _ALIGNMENT)
    begin = -(-ctypes.addressof(memory) // _ALIGNMENT) * _ALIGNMENT
    addresses, allocations = {}, []
    for variable, offset in zip(variables, offsets, strict=True):
        addresses[variable.name] = begin + offset
        allocations.append((f"variable {variable.name}", begin + offset, variable.size))
        if variable.initial:
            ctypes.memmove(begin + offset, variable.initial, len(variable.initial))
    return ModuleVariables(addresses, allocations, memory)
