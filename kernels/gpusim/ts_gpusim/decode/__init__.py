# SPDX-License-Identifier: MIT
"""From typed instructions to a program that the machine executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ts_gpusim import _machine
from ts_gpusim.decode.builder import Builder
from ts_gpusim.decode.copies import copy
from ts_gpusim.decode.families import FAMILIES
from ts_gpusim.decode.tensor_cores import tcgen05, wgmma
from ts_gpusim.ptx import isa
from ts_gpusim.ptx.syntax import Address, Instruction, Kernel, Module, Symbol, Variable

_FAMILIES = {**FAMILIES, "cp": copy, "wgmma": wgmma, "tcgen05": tcgen05}


@dataclass(frozen=True)
class Decoded:
    """`instructions`: that of each step of the program; None at the end of the kernel."""

    program: _machine.Program
    instructions: list[Instruction | None]


def decode(
    module: Module, kernel: Kernel, module_addresses: Mapping[str, int] | None = None
) -> Decoded:
    """PtxError, with line, text and section, for what PTX does not have or the machine does not
    execute. `module_addresses`: of the module's global and const variables."""
    variables = [*_mentioned(module, kernel), *kernel.variables.values()]
    builder = Builder(kernel, variables, module_addresses or {})
    builder.starts = []
    for instruction in kernel.instructions:
        isa.check(instruction)
        builder.instruction = instruction
        builder.starts.append(builder.position)
        family = _FAMILIES.get(instruction.opcode)
        if family is None:
            raise builder.not_executed(f"`{instruction.opcode}`")
        family(builder, instruction)
    builder.instruction = None
    builder.starts.append(builder.position)
    builder.step("exit", [])
    return Decoded(builder.finish(), builder.instructions)


def _mentioned(module: Module, kernel: Kernel) -> list[Variable]:
    """The module's variables that the kernel uses."""
    names = set()
    for instruction in kernel.instructions:
        for operand in instruction.operands:
            base = operand.base if isinstance(operand, Address) else operand
            if isinstance(base, Symbol):
                names.add(base.name)
    return [v for v in module.variables.values() if v.name in names]
