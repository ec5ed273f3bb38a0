# SPDX-License-Identifier: MIT
"""What the families of instructions share: operands become places, steps go into the program."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ts_gpusim import _machine
from ts_gpusim.cost_model import Work, work_of
from ts_gpusim.decode import register_flow
from ts_gpusim.decode.registers import NOWHERE, SPECIALS, WIDE_SPECIALS, WIDTH, RegisterFile
from ts_gpusim.ptx import isa
from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.syntax import (
    Address,
    Body,
    FloatImmediate,
    Guard,
    Immediate,
    Instruction,
    Kernel,
    Module,
    NegatedRegister,
    Operand,
    Register,
    Sink,
    SpecialRegister,
    Symbol,
    Variable,
    Vector,
)

HANDLERS = frozenset(_machine.handlers())
NARROW_SHARED = 2  # modifier of many handlers: the address is a 32-bit register

_INTEGER_OF_WIDTH = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}


@dataclass(frozen=True)
class Place:
    """Of an operand; `offset` is added where it is an address of `width` bytes.

    `use`: how the instruction uses the register that it is, if it is one.
    """

    at: int
    offset: int = 0
    width: int = 0
    use: int | None = None

    def as_tuple(self) -> tuple[int, int]:
        return (self.at, self.offset)


SINK = Place(NOWHERE)


@dataclass(frozen=True)
class _Pending:
    """A step of the program, whose branch target has no number yet."""

    handler: str
    operands: list[Place]
    modifiers: int
    guard: int | None  # place of the predicate
    negated: bool
    target: str | None
    instruction: Instruction | None


class Builder:
    """Makes one program of a kernel and the functions that it calls, body after body."""

    def __init__(
        self, module: Module, variables: list[Variable], module_addresses: Mapping[str, int]
    ) -> None:
        """`variables`: those in shared memory. `module_addresses`: of the module's global and
        const variables, and of its functions."""
        self.module = module
        self.module_addresses = module_addresses
        self.program = _machine.Program()
        self.registers = RegisterFile()
        self.shared_offsets: dict[str, int] = {}
        self.instruction: Instruction | None = None
        self.targets: dict[str, int] = {}  # steps at which bodies and their labels stand
        self.functions: list[str] = []  # that are called by their address
        self.stack_bytes = 0  # of local memory, for the frames of all functions
        self._pending: list[_Pending] = []
        self._lay_out_shared(variables)
        self._local_base: int | None = None

    def _lay_out_shared(self, variables: list[Variable]) -> None:
        offset = 0
        for variable in sorted(
            variables,
            key=lambda v: v.size == 0,  # `extern` ones begin where the others end
        ):
            align = max(variable.align, 16 if variable.size == 0 else 1)
            offset = -(-offset // align) * align
            self.shared_offsets[variable.name] = offset
            offset += variable.size
        self.static_shared_bytes = offset

    def begin(self, body: Body, frame: Mapping[str, int], moving: bool) -> None:
        """What follows is of this body. `frame`: offsets of its local variables from the begin of
        its local memory, which a call moves if there are any (`moving`)."""
        self.body = body
        self.registers.scope = body.name if moving else ""
        self.parameter_offsets = {}
        self.frame_offsets = dict(frame)
        self._moving = moving
        if isinstance(body, Kernel):
            self.parameter_offsets = {p.name: p.offset for p in body.parameters}
        self.targets[body.name] = self.position

    @property
    def frame(self) -> Place:
        """Register with the address of the body's local memory."""
        return Place(self.registers.frame() if self._moving else self.local_base, 0, 8)

    def error(self, why: str) -> PtxError:
        """About the instruction: with its line, text and section of the PTX ISA."""
        assert self.instruction is not None
        section = isa.match(self.instruction).section
        return PtxError(f"`{self.instruction.text}`: {why} ({section})", self.instruction.line)

    def not_executed(self, what: str) -> PtxError:
        return self.error(f"{what} is not executed yet")

    # Steps

    def step(
        self,
        handler: str,
        operands: Sequence[Place],
        modifiers: int = 0,
        guard: Guard | None = None,
        target: str | None = None,
        always: bool = False,
    ) -> None:
        """`target`: a label of the body, or a function. `always`: whatever the instruction's guard
        says (a step that only computes a value)."""
        if handler not in HANDLERS:
            raise self.not_executed(f"this (the machine has no {handler})")
        if guard is None and not always and self.instruction is not None:
            guard = self.instruction.guard
        if target in self.body.labels:
            target = self.own(target)
        at = None if guard is None else self.registers.register(guard.predicate)
        negated = guard is not None and guard.negated
        self._pending.append(
            _Pending(handler, list(operands), modifiers, at, negated, target, self.instruction)
        )

    def own(self, label: str) -> str:
        """The name of a label among those of all bodies."""
        return f"{self.body.name}:{label}"

    def finish(self) -> _machine.Program:
        watched = self._watched()
        local_base = self.local_base if self.stack_bytes else -1
        before = None
        for step in self._pending:
            first = step.instruction is not None and step.instruction is not before
            before = step.instruction
            self.program.add(
                handler=step.handler,
                operands=[place.as_tuple() for place in step.operands],
                modifiers=step.modifiers,
                guard=-1 if step.guard is None else step.guard,
                guard_negated=step.negated,
                target=0 if step.target is None else self.targets[step.target],
                meets=step.instruction is not None and _meets(step.instruction),
                work=work_of(step.instruction) if first and step.instruction else Work.NONE,
                text=describe(step.instruction),
                uses=[(watched[at], how) for at, how in _uses(step) if at in watched],
            )
        self.program.finish(
            registers=self.registers.image,
            specials=self.registers.specials,
            static_shared_bytes=self.static_shared_bytes,
            local_bytes=self.stack_bytes,
            local_base=local_base,
            most_registers=_most_registers(self.body),
            functions=[(self.module_addresses[f], self.targets[f]) for f in self.functions],
            watched=[self.registers.name(at) for at in watched],
        )
        return self.program

    def _watched(self) -> dict[int, int]:
        """The places of the registers that the machine keeps track of, and their numbers there."""
        number: dict[int, int] = {}
        steps = []
        for step in self._pending:
            uses = tuple((number.setdefault(at, len(number)), how) for at, how in _uses(step))
            to = None if step.target is None else self.targets[step.target]
            guarded = step.guard is not None
            steps.append(register_flow.FlowStep(step.handler, uses, guarded, to))
        found = register_flow.suspects(steps)
        suspected = [at for at, register in number.items() if register in found]
        return {at: i for i, at in enumerate(suspected)}

    @property
    def instructions(self) -> list[Instruction | None]:
        """That of each step."""
        return [step.instruction for step in self._pending]

    @property
    def position(self) -> int:
        return len(self._pending)

    @property
    def local_base(self) -> int:
        if self._local_base is None:
            self._local_base = self.registers.temporary(8)
        return self._local_base

    # Operands

    def temporary(self, width: int) -> Place:
        return Place(self.registers.temporary(width), 0, width)

    def constant(self, value: int, width: int) -> Place:
        return Place(self.registers.constant(value, width), 0, width)

    def special(self, name: str) -> Place:
        if name not in SPECIALS:
            raise self.error(f"the special register {name} is not known here")
        return Place(self.registers.special(name), 0, 8 if name in WIDE_SPECIALS else 4)

    def width(self, type_: str) -> int:
        """Bytes of a value of `type_`."""
        if type_ not in WIDTH:
            raise self.not_executed(f".{type_}")
        return WIDTH[type_]

    def result(self, operand: Operand, type_: str) -> Place:
        """Where an instruction leaves a value of `type_`, in a register of that width."""
        if isinstance(operand, Sink):  # a register that nobody reads
            return self.temporary(self.width(type_))
        if not isinstance(operand, Register):
            raise self.error(f"{operand} cannot take a result")
        width = self.width(operand.type)
        if width != self.width(type_):
            raise self.error(
                f"{operand.name} is .{operand.type}, but the result is .{type_}: declare another"
            )
        return Place(self.registers.register(operand), 0, width, register_flow.WRITE)

    def source(self, operand: Operand, type_: str) -> Place:
        width = self.width(type_)
        match operand:
            case Register():
                place = self._read(operand, self.width(operand.type))
                return place if place.width == width else self.fitted(place, width)
            case Immediate(value):
                if type_ in ("f32", "f64"):
                    raise self.error(f"{value} is no floating-point constant")
                return self.constant(value, width)
            case FloatImmediate(bits, given):
                if given == 8 * width:
                    return self.constant(bits, width)
                if given == 64 and type_ == "f32":
                    return self.constant(_as_f32(bits), width)
                raise self.error(f"a constant of {given} bits is given for {type_}")
            case SpecialRegister(name):
                place = self.special(name)
                return place if place.width == width else self.fitted(place, width)
            case Symbol():
                return self.address_of(operand, width)
            case NegatedRegister(register):
                place = self.temporary(0)
                negated = [place, self._read(register, 0)]
                self.step("not.pred", negated, always=True)
                return place
        raise self.error(f"{operand} is no value")

    def _read(self, register: Register, width: int, offset: int = 0) -> Place:
        return Place(self.registers.register(register), offset, width, register_flow.READ)

    def fitted(self, place: Place, width: int, signed: bool = False) -> Place:
        """The low bytes, or zero- or sign-extended."""
        if not place.width or not width:
            raise self.error("a predicate and a number are not of one kind")
        if 16 in (place.width, width):
            raise self.error("a register of 128 bits and another width do not go together")
        temporary = self.temporary(max(width, 2))
        names = [_INTEGER_OF_WIDTH[max(n, 2)] for n in (width, place.width)]
        if signed:
            names = [name.replace("u", "s") for name in names]
        self.step(f"cvt.{names[0]}.{names[1]}", [temporary, place], always=True)
        return temporary

    def address_of(self, symbol: Symbol, width: int) -> Place:
        """As a value in a register: a generic address has 8 bytes, one of shared memory 4."""
        place = self.temporary(width)
        if symbol.name in self.parameter_offsets:
            offset = self.constant(self.parameter_offsets[symbol.name] + symbol.offset, 8)
            self.step("add.u64", [place, self.special("%parameters"), offset], always=True)
        elif symbol.name in self.shared_offsets:
            offset = self.constant(self.shared_offsets[symbol.name] + symbol.offset, 4)
            narrow = place if width == 4 else self.temporary(4)
            self.step("add.u32", [narrow, self.special("%shared"), offset], always=True)
            if width == 8:
                self.step("cvt.u64.u32", [place, narrow], always=True)
        elif symbol.name in self.frame_offsets:
            offset = self.constant(self.frame_offsets[symbol.name] + symbol.offset, 8)
            self.step("add.u64", [place, self.frame, offset], always=True)
        elif symbol.name in self.module_addresses and width == 8:
            return self.constant(self.module_addresses[symbol.name] + symbol.offset, 8)
        else:
            raise self.error(f"{symbol.name} is neither a parameter nor a variable of the kernel")
        return place

    def address(self, operand: Operand) -> Place:
        """Of memory: a place with an offset; its width says how wide the address is."""
        if not isinstance(operand, Address):
            raise self.error(f"{operand} is no address")
        base = operand.base
        match base:
            case Register():
                width = WIDTH[base.type]
                return self._read(base, width, operand.offset)
            case Symbol():
                if base.name in self.parameter_offsets:
                    offset = self.parameter_offsets[base.name] + base.offset + operand.offset
                    return Place(self.special("%parameters").at, offset, 8)
                if base.name in self.shared_offsets:
                    offset = self.shared_offsets[base.name] + base.offset + operand.offset
                    return Place(self.special("%shared").at, offset, 4)
                if base.name in self.frame_offsets:
                    offset = self.frame_offsets[base.name] + base.offset + operand.offset
                    return Place(self.frame.at, offset, 8)
                place = self.address_of(base, 8)
                return Place(place.at, operand.offset, 8)
            case Immediate(value):
                return Place(self.constant(value, 8).at, operand.offset, 8)

    def vector(self, operand: Operand) -> list[Operand]:
        return list(operand.elements) if isinstance(operand, Vector) else [operand]


_COPIES = {"mov": register_flow.COPY, "split": register_flow.COPY, "join": register_flow.COPY_PART}


def _uses(step: _Pending) -> Iterator[tuple[int, int]]:
    """The registers that a step uses, and how: what it reads first."""
    if step.guard is not None:
        yield step.guard, register_flow.READ
    copies = _COPIES.get(step.handler.split(".")[0])
    results = []
    for place in step.operands:
        if place.use is None:
            continue
        if place.use == register_flow.READ:
            yield place.at, register_flow.READ if copies is None else copies
        else:
            results.append((place.at, place.use if copies is None else register_flow.COPY_TO))
    yield from results


def _most_registers(body: Body) -> int:
    """Of a thread when the kernel starts: its .maxnreg. 0: only the assembler knows, and setmaxnreg
    is taken as granted (PTX ISA 9.7.19.5)."""
    return (body.max_registers or 0) if isinstance(body, Kernel) else 0


def _as_f32(bits: int) -> int:
    """Of a double, which a decimal constant is (PTX ISA 4.5.2)."""
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    (rounded,) = struct.unpack("<I", np.float32(value).tobytes())
    return int(rounded)


def _meets(instruction: Instruction) -> bool:
    """Do the threads of a warp wait for each other in it?"""
    if instruction.opcode in ("bar", "barrier"):
        return "arrive" not in instruction.modifiers
    return "sync" in instruction.modifiers


def describe(instruction: Instruction | None) -> str:
    """As messages name it: the text, and where it is from."""
    if instruction is None:
        return "the end of the kernel"
    text = instruction.text if len(instruction.text) <= 120 else f"{instruction.text[:117]}..."
    location = f", {instruction.location}" if instruction.location else ""
    return f"`{text}` (PTX line {instruction.line}{location})"
