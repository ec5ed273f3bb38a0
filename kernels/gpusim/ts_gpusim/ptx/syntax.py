# SPDX-License-Identifier: MIT
"""PTX as typed data: what the parser makes and the decoder reads.

Names follow the PTX ISA (https://docs.nvidia.com/cuda/parallel-thread-execution/): a module has
kernels (`.entry`) and functions (`.func`), and these have parameters, registers, variables and
instructions.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SourceLocation:
    """Where the kernel's author wrote it, from `.loc`; `inlined_at` is the caller's line."""

    file: str
    line: int
    column: int
    inlined_at: SourceLocation | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Register:
    """`type`: as declared, such as pred, b16, b32, f32, b64."""

    name: str
    type: str


@dataclass(frozen=True)
class SpecialRegister:
    """Such as %tid.x, %laneid, %cluster_ctarank."""

    name: str


@dataclass(frozen=True)
class Immediate:
    """An integer constant, with its sign, before it takes the instruction's type."""

    value: int


@dataclass(frozen=True)
class FloatImmediate:
    """`bits` of `0f...` (width 32) or `0d...` or a decimal literal (width 64)."""

    bits: int
    width: int


@dataclass(frozen=True)
class Symbol:
    """The address of a variable or parameter, plus `offset` bytes."""

    name: str
    offset: int = 0


@dataclass(frozen=True)
class Label:
    name: str


@dataclass(frozen=True)
class Address:
    """`[base + offset]`; `coordinates` for a tensor address, `[base, {c0, c1}]`."""

    base: Register | Symbol | Immediate
    offset: int = 0
    coordinates: tuple[Register | Immediate, ...] = ()


@dataclass(frozen=True)
class Vector:
    """`{a, b, ...}`."""

    elements: tuple[Register | Immediate | FloatImmediate | Sink, ...]


@dataclass(frozen=True)
class PredicatePair:
    """`p|q`: the second takes the complement, or is `_`."""

    first: Register | Sink
    second: Register | Sink


@dataclass(frozen=True)
class Arguments:
    """`(a, b, ...)` of a call: what is passed, or what takes what is returned."""

    elements: tuple[Operand, ...]


@dataclass(frozen=True)
class NegatedRegister:
    """`!p` as an operand."""

    register: Register


@dataclass(frozen=True)
class Sink:
    """`_`: the result is not wanted."""


Operand = (
    Register
    | SpecialRegister
    | Immediate
    | FloatImmediate
    | Symbol
    | Label
    | Address
    | Vector
    | PredicatePair
    | Arguments
    | NegatedRegister
    | Sink
)


@dataclass(frozen=True)
class Guard:
    """`@p` or `@!p`."""

    predicate: Register
    negated: bool


@dataclass(frozen=True)
class Instruction:
    """`opcode`: the part before the first dot; `modifiers`: the others in order, such as
    ("async", "bulk", "tensor", "2d", "shared::cluster", ...)."""

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Guard | None
    line: int  # of the PTX text, from 1
    location: SourceLocation | None
    text: str  # as written, on one line

    @property
    def name(self) -> str:
        """With its modifiers, as written."""
        return ".".join((self.opcode, *self.modifiers))


@dataclass(frozen=True)
class Parameter:
    """Of a kernel or function, or what a function returns; `size` and `align` in bytes, `offset`
    in the block of all of them."""

    name: str
    type: str
    size: int
    align: int
    offset: int


@dataclass(frozen=True)
class Variable:
    """`space`: shared, global, const, local or, for the arguments of calls, param; `size` 0:
    `extern`, sized by the launch. `initial` may be shorter than `size`: the rest is zero.
    `addresses`: of it, where the address of a variable or function stands, its name and offset."""

    name: str
    space: str
    size: int
    align: int
    initial: bytes | None = None
    addresses: tuple[tuple[int, Symbol], ...] = ()


@dataclass
class Body:
    """What kernels and functions have in common. Registers, labels and variables of inner `{ }`
    scopes have been given names of their own. `registers` has those that an instruction names."""

    name: str
    parameters: list[Parameter] = field(default_factory=list)
    registers: dict[str, Register] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # index into instructions
    branch_targets: dict[str, tuple[str, ...]] = field(default_factory=dict)  # .branchtargets
    prototypes: dict[str, Prototype] = field(default_factory=dict)  # .callprototype


@dataclass
class Kernel(Body):
    max_threads: tuple[int, int, int] | None = None  # .maxntid
    required_threads: tuple[int, int, int] | None = None  # .reqntid
    required_cluster: tuple[int, int, int] | None = None  # .reqnctapercluster
    explicit_cluster: bool = False
    max_registers: int | None = None  # .maxnreg
    min_ctas_per_sm: int | None = None  # .minnctapersm


@dataclass
class Function(Body):
    """A device function, `.func`; `defined`: it has a body here."""

    returns: list[Parameter] = field(default_factory=list)
    defined: bool = False


@dataclass(frozen=True)
class Prototype:
    """What a function that is called by its address takes and returns."""

    parameters: tuple[Parameter, ...]
    returns: tuple[Parameter, ...]


@dataclass
class Module:
    version: tuple[int, int]
    target: str  # such as sm_100a
    address_size: int
    kernels: dict[str, Kernel] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)  # of .file
