# SPDX-License-Identifier: MIT
"""From typed instructions to a program that the machine executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ts_gpusim import _machine
from ts_gpusim.decode import refused
from ts_gpusim.decode.builder import Builder, Place
from ts_gpusim.decode.calls import call
from ts_gpusim.decode.copies import copy
from ts_gpusim.decode.families import FAMILIES
from ts_gpusim.decode.module_variables import function_addresses
from ts_gpusim.decode.program_bodies import Bodies, symbols
from ts_gpusim.decode.tensor_cores import tcgen05, wgmma
from ts_gpusim.decode.tensor_maps import tensor_map
from ts_gpusim.decode.warp_matrices import mma
from ts_gpusim.ptx import isa
from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.syntax import Body, Function, Instruction, Kernel, Module, Variable

_FAMILIES = {
    **FAMILIES,
    "tensormap": tensor_map,
    "cp": copy,
    "mma": mma,
    "wgmma": wgmma,
    "tcgen05": tcgen05,
}

EXECUTED = frozenset({*_FAMILIES, "call"})  # opcodes, of which single forms may be refused


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
    bodies = Bodies(module, kernel)
    addresses = {**(module_addresses or {}), **function_addresses(module)}
    builder = Builder(module, _shared_variables(module, bodies), addresses)
    builder.functions = [f.name for f in bodies.functions if f.name in bodies.by_address]
    moving = bool(bodies.functions)
    if moving:
        builder.begin(kernel, {}, moving)
        builder.step("bra", [], target=kernel.name)
    for body in (*bodies.functions, kernel):
        builder.begin(body, bodies.frames[body.name].offsets, moving)
        if moving and body is kernel:
            builder.step("mov.b64", [builder.frame, Place(builder.local_base, 0, 8)])
        _decode_body(builder, bodies, body)
    builder.stack_bytes = bodies.stack_bytes
    return Decoded(builder.finish(), builder.instructions)


def _decode_body(builder: Builder, bodies: Bodies, body: Body) -> None:
    labels: dict[int, list[str]] = {}
    for label, index in body.labels.items():
        labels.setdefault(index, []).append(label)
    for index, instruction in enumerate(body.instructions):
        refusal = refused.OPCODES.get(instruction.opcode)
        if refusal is not None:
            raise PtxError(
                f"`{instruction.text}`: `{instruction.opcode}` is not executed: {refusal.why} "
                f"(PTX ISA {refusal.section})",
                instruction.line,
            )
        isa.check(instruction)
        builder.instruction = instruction
        for label in labels.get(index, ()):
            builder.targets[builder.own(label)] = builder.position
        if instruction.opcode == "call":
            call(builder, bodies, instruction)
            continue
        family = _FAMILIES.get(instruction.opcode)
        if family is None:
            raise builder.not_executed(f"`{instruction.opcode}`")
        family(builder, instruction)
    builder.instruction = None
    for label in labels.get(len(body.instructions), ()):
        builder.targets[builder.own(label)] = builder.position
    builder.step("return" if isinstance(body, Function) else "exit", [])


def _shared_variables(module: Module, bodies: Bodies) -> list[Variable]:
    """The module's that the kernel and its functions use, and their own."""
    all_bodies = (bodies.kernel, *bodies.functions)
    names = {n for body in all_bodies for i in body.instructions for n in symbols(i.operands)}
    variables = [v for v in module.variables.values() if v.name in names]
    variables += [v for body in all_bodies for v in body.variables.values()]
    return [v for v in variables if v.space == "shared"]
