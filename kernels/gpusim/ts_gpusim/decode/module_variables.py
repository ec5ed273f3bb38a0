# SPDX-License-Identifier: MIT
"""The global and const variables of a module (PTX ISA 5.1.3, 5.1.4 and 5.4.4).

They get host memory when one of the module's kernels is decoded for the first time, and keep it,
and what kernels write there, as those of a module that is loaded once.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.syntax import Module

_ALIGNMENT = 128
_FUNCTIONS = 1 << 58  # where the addresses of functions begin: no memory is there


def function_addresses(module: Module) -> dict[str, int]:
    """What stands for a function where its address is taken."""
    return {name: _FUNCTIONS + 16 * number for number, name in enumerate(module.functions)}


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
    known = {**addresses, **function_addresses(module)}
    for variable in variables:
        for at, symbol in variable.addresses:
            if symbol.name not in known:
                raise PtxError(
                    f"`{variable.name}` holds the address of `{symbol.name}`, which is neither a "
                    "function nor a global variable of the module; store it in the kernel"
                )
            value = ctypes.c_uint64(known[symbol.name] + symbol.offset)
            ctypes.memmove(addresses[variable.name] + at, ctypes.byref(value), 8)
    return ModuleVariables(addresses, allocations, memory)
