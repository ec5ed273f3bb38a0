# SPDX-License-Identifier: MIT
"""The functions that a kernel may reach, in which order they stand in its program, and their
frames in a thread's local memory (PTX ISA 7.1, function declarations and definitions).

A frame has what a function is given and returns, its local variables, and what it gives to those
that it calls (`.param` variables). Where a function calls another, the frame of that begins where
its own ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.syntax import (
    Address,
    Arguments,
    Body,
    Function,
    Instruction,
    Kernel,
    Module,
    Operand,
    Parameter,
    Symbol,
)

_ALIGNMENT = 16
# Of local memory for the frames of functions that call themselves: beyond a CUDA device's own
# default (1 KB, cudaLimitStackSize), so that only runaway recursion ends here.
RECURSION_BYTES = 16 << 10


def aligned(size: int, alignment: int = _ALIGNMENT) -> int:
    return -(-size // alignment) * alignment


def returns_begin(parameters: Iterable[Parameter]) -> int:
    """Where in a frame what is returned stands."""
    return aligned(max((p.offset + p.size for p in parameters), default=0))


@dataclass
class Frame:
    """Offsets of its variables, and bytes."""

    offsets: dict[str, int] = field(default_factory=dict)
    size: int = 0


def _frame(body: Body) -> Frame:
    frame = Frame()
    if isinstance(body, Function):
        begin = returns_begin(body.parameters)
        frame.offsets.update((p.name, p.offset) for p in body.parameters)
        frame.offsets.update((p.name, begin + p.offset) for p in body.returns)
        frame.size = begin + max((p.offset + p.size for p in body.returns), default=0)
    for variable in body.variables.values():
        if variable.space in ("local", "param"):
            frame.offsets[variable.name] = aligned(frame.size, variable.align)
            frame.size = frame.offsets[variable.name] + variable.size
    frame.size = aligned(frame.size)
    return frame


class Bodies:
    """`functions`: callees before their callers, so that threads which are in a function go on
    before those that wait for them behind the call. `by_address`: those that may be called so."""

    def __init__(self, module: Module, kernel: Kernel) -> None:
        self.module = module
        self.kernel = kernel
        self.by_address = [f for f in _with_address(module) if module.functions[f].defined]
        self.functions: list[Function] = []
        self._callees: dict[str, list[str]] = {}
        self._visit(kernel)
        self.frames = {body.name: _frame(body) for body in (*self.functions, kernel)}
        self._recursive = {f.name for f in self.functions if f.name in self._reached(f.name)}

    def _visit(self, body: Body) -> None:
        if body.name in self._callees:
            return
        self._callees[body.name] = callees = []
        for instruction in body.instructions:
            if instruction.opcode == "call":
                callees += self._called(instruction)
        for callee in callees:
            self._visit(self.module.functions[callee])
        if isinstance(body, Function):
            self.functions.append(body)

    def _called(self, instruction: Instruction) -> list[str]:
        target = call_target(instruction)
        if not isinstance(target, Symbol):
            return self.by_address
        function = self.module.functions.get(target.name)
        if function is None or not function.defined:
            raise PtxError(
                f"function `{target.name}` has no body in this module (printf, malloc and assert "
                "have none); leave the call out or link the function",
                instruction.line,
            )
        return [target.name]

    def _reached(self, name: str) -> set[str]:
        reached: set[str] = set()
        waiting = list(self._callees[name])
        while waiting:
            callee = waiting.pop()
            if callee not in reached:
                reached.add(callee)
                waiting += self._callees[callee]
        return reached

    def may_return_to_itself(self, caller: str, callees: Iterable[str]) -> bool:
        """Could the caller be entered again before the callees have returned?"""
        return any(caller in {callee, *self._reached(callee)} for callee in callees)

    @property
    def stack_bytes(self) -> int:
        """Of local memory for every frame that may be there at once."""
        deepest = self._deepest(self.kernel.name, frozenset())
        return deepest + (RECURSION_BYTES if self._recursive else 0)

    def _deepest(self, name: str, above: frozenset[str]) -> int:
        below = [
            self._deepest(callee, above | {name})
            for callee in set(self._callees[name])
            if callee not in above | {name}
        ]
        return self.frames[name].size + max(below, default=0)


def call_target(instruction: Instruction) -> Operand:
    """Of `call (returned), target, (arguments), prototype`: a function or a register."""
    return next(o for o in instruction.operands if not isinstance(o, Arguments))


def _with_address(module: Module) -> Iterator[str]:
    """Functions whose address is taken, by an instruction or an initialiser."""
    named = {s.name for v in module.variables.values() for _, s in v.addresses}
    for body in (*module.kernels.values(), *module.functions.values()):
        for instruction in body.instructions:
            if instruction.opcode != "call":
                named.update(symbols(instruction.operands))
    return (name for name in module.functions if name in named)


def symbols(operands: Iterable[Operand]) -> Iterator[str]:
    """The variables and functions that operands name."""
    for operand in operands:
        base = operand.base if isinstance(operand, Address) else operand
        if isinstance(base, Symbol):
            yield base.name
        elif isinstance(base, Arguments):
            yield from symbols(base.elements)
