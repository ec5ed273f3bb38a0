# SPDX-License-Identifier: MIT
"""Addresses, ld, st, atom and red (PTX ISA 9.7.9.8 to 9.7.9.24, 9.7.13.5, 9.7.13.6)."""

from __future__ import annotations

from ts_gpusim.decode.builder import SINK, Builder
from ts_gpusim.decode.fields import SIGNED, Decode, immediate, narrow, type_of
from ts_gpusim.decode.registers import WIDTH
from ts_gpusim.ptx.syntax import Instruction, Operand, Register, Sink

_SPACES = ("global", "shared", "param", "local", "const")
_SHARED = 1
_GLOBAL = 4
_PRIVATE = 8
_WINDOW = 1 << 60  # bit of a generic address: it is in shared memory


def _cvta(builder: Builder, instruction: Instruction) -> None:
    destination, source = instruction.operands
    to = instruction.modifiers[0] == "to"
    space = instruction.modifiers[1 if to else 0].split("::")[0]
    type_ = type_of(instruction)
    if type_ != "u64":
        raise builder.error("only 64-bit generic addresses are executed")
    value = builder.source(source, type_)
    result = builder.result(destination, type_)
    if space != "shared":
        return builder.step("mov.b64", [result, value])
    if to:
        mask = builder.constant(_WINDOW - 1, 8)
        return builder.step("and.b64", [result, value, mask])
    builder.step("or.b64", [result, value, builder.constant(_WINDOW, 8)])


def _space(instruction: Instruction) -> int:
    """Modifiers of an access: where it is, if the instruction says so."""
    spaces = {m.split("::")[0] for m in instruction.modifiers} & set(_SPACES)
    if not spaces:
        return 0
    if "shared" in spaces:
        return _SHARED
    return _GLOBAL if "global" in spaces else _GLOBAL | _PRIVATE


_ORDERS = ("weak", "relaxed", "acquire", "release", "acq_rel")
_SCOPES = ("cta", "cluster", "gpu", "sys")


def semantics(instruction: Instruction, default: str) -> int:
    """The bits that say how an access is ordered: PTX ISA 8.7, "memory consistency model".

    A volatile access is a relaxed one of the whole system; without a scope, it is the GPU.
    """
    given = set(instruction.modifiers)
    if "volatile" in given:
        given = {"relaxed", "sys"}
    order = next((m for m in _ORDERS if m in given), default)
    scope = next((m for m in _SCOPES if m in given), "gpu")
    return _ORDERS.index(order) << 16 | _SCOPES.index(scope) << 20


def _access(builder: Builder, instruction: Instruction) -> None:
    """ld and st."""
    loads = instruction.opcode.startswith("ld")
    type_ = type_of(instruction)
    registers, address = instruction.operands[:2] if loads else instruction.operands[1::-1]
    elements = builder.vector(registers)
    place = builder.address(address)
    vector = next((int(m[1]) for m in instruction.modifiers if m in ("v2", "v4", "v8")), 1)
    if len(elements) != vector:
        raise builder.error(f"{len(elements)} registers are given for {vector} elements")
    modifiers = vector << 8 | _space(instruction) | narrow(place)
    modifiers |= semantics(instruction, "weak")
    width = builder.width(type_)
    widths = {builder.width(e.type) for e in elements if isinstance(e, Register)}
    container = max(widths, default=width)
    if container < width:
        raise builder.error(f"a register of {8 * container} bits is too narrow for .{type_}")
    bits = f"b{8 * container}"
    places = [builder.result(e, bits) if loads else builder.source(e, bits) for e in elements]
    memory = type_ if type_ in SIGNED and loads and type_ != "s64" else f"u{8 * width}"
    handler = f"{'ld' if loads else 'st'}.{memory}.{8 * container}"
    builder.step(handler, [*places, place], modifiers=modifiers)


_ATOMS = ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")


def _atom(builder: Builder, instruction: Instruction) -> None:
    """atom, and red, which has no result."""
    if "async" in instruction.modifiers:
        return _async(builder, instruction)
    type_ = type_of(instruction)
    operands: list[Operand] = list(instruction.operands)
    if "L2::cache_hint" in instruction.modifiers:
        operands.pop()
    name = next(m for m in instruction.modifiers if m in _ATOMS)
    count = next((int(m[1]) for m in instruction.modifiers if m in ("v2", "v4", "v8")), 1)
    results = [SINK] * count
    if instruction.opcode == "atom":
        wanted = operands.pop(0)
        elements: list[Operand] = builder.vector(wanted)
        if isinstance(wanted, Sink):
            elements = [wanted] * count
        results = [builder.result(element, type_) for element in elements]
    address = builder.address(operands[0])
    values = [builder.source(e, type_) for v in operands[1:] for e in builder.vector(v)]
    if len(results) != count or len(values) != count * len(operands[1:]):
        raise builder.error(f"the operands have not the {count} elements of the vector")
    modifiers = count << 8 | _space(instruction) | narrow(address)
    modifiers |= semantics(instruction, "relaxed")
    builder.step(f"atom.{name}.{type_}", [*results, address, *values], modifiers=modifiers)


_LEVELS = {"cta": "cta", "gl": "gpu", "sys": "sys"}  # of membar, as scopes
_PROXY_SPACES = {"async": 3, "async.shared::cta": 1, "async.shared::cluster": 1, "async.global": 2}


def _fence(builder: Builder, instruction: Instruction) -> None:
    """fence and membar. What orders tensor maps and aliases is in order in every run."""
    modifiers = instruction.modifiers
    if modifiers[0] == "proxy":
        spaces = _PROXY_SPACES.get(".".join(modifiers[1:]), 0)
        name = "fence.proxy.async" if spaces else "nop"
        return builder.step(name, [], modifiers=spaces)
    if modifiers[0] == "mbarrier_init":
        return builder.step("fence.mbarrier_init", [])
    order = next((m for m in ("acquire", "release") if m in modifiers), "acq_rel")
    scope = next(s for m in modifiers if (s := _LEVELS.get(m, m)) in _SCOPES)
    order_bits = _ORDERS.index(order) << 16 | _SCOPES.index(scope) << 20
    builder.step("fence", [], modifiers=order_bits)


def _createpolicy(builder: Builder, instruction: Instruction) -> None:
    result = builder.result(instruction.operands[0], "b64")
    builder.step("mov.b64", [result, builder.constant(0, 8)])


def _isspacep(builder: Builder, instruction: Instruction) -> None:
    space = instruction.modifiers[0]
    if space not in ("global", "local", "shared", "shared::cta", "shared::cluster"):
        raise builder.not_executed(f".{space}")
    space = "shared::cta" if space == "shared" else space
    destination, address = instruction.operands
    places = [builder.result(destination, "pred"), builder.source(address, "b64")]
    builder.step(f"isspacep.{space}", places)


def _getctarank(builder: Builder, instruction: Instruction) -> None:
    """What mapa puts above bit 24 of an address, below that of a generic one."""
    type_ = type_of(instruction)
    width = WIDTH[type_]
    destination, address = instruction.operands
    number = builder.temporary(width)
    places = [number, builder.source(address, type_), builder.constant(24, 4)]
    builder.step(f"shr.{type_}", places, always=True)
    if width == 8:
        masked = builder.temporary(8)
        mask = builder.constant((1 << 36) - 1, 8)
        builder.step("and.b64", [masked, number, mask], always=True)
        number = builder.fitted(masked, 4)
    builder.step("mov.b32", [builder.result(destination, "u32"), number])


_REDUCTIONS = ("", "add", "min", "max", "inc", "dec", "and", "or", "xor")  # machine/reductions.h
_NUMBERS = ("u32", "s32", "u64", "s64")


def _async(builder: Builder, instruction: Instruction) -> None:
    """st.async and red.async."""
    modifiers = instruction.modifiers
    if "mbarrier::complete_tx::bytes" not in modifiers:
        raise builder.not_executed("an asynchronous store that no mbarrier announces")
    type_ = type_of(instruction)
    address, values, barrier = instruction.operands
    places = [builder.address(address), builder.address(barrier)]
    flags = sum(1 << i for i, place in enumerate(places) if place.width == 4)
    elements = builder.vector(values)
    flags |= len(elements) << 8 | builder.width(type_) << 12
    if instruction.opcode == "red":
        operation = next(m for m in modifiers if m in _REDUCTIONS)
        number = type_.replace("b32", "u32")
        flags |= _REDUCTIONS.index(operation) << 20 | _NUMBERS.index(number) << 24
    places += [builder.source(element, type_) for element in elements]
    builder.step("st.async", places, modifiers=flags)


def _st(builder: Builder, instruction: Instruction) -> None:
    if instruction.modifiers[0] == "async":
        return _async(builder, instruction)
    if instruction.modifiers[0] != "bulk":
        return _access(builder, instruction)
    address, size, value = instruction.operands
    if immediate(builder, value) != 0:
        raise builder.error("st.bulk stores zeros: its last operand must be 0")
    place = builder.address(address)
    builder.step(
        "st.bulk", [place, builder.source(size, "u64")], modifiers=1 if place.width == 4 else 0
    )


def _mapa(builder: Builder, instruction: Instruction) -> None:
    """The address of the same place in another CTA of the cluster."""
    type_ = type_of(instruction)
    width = WIDTH[type_]
    destination, address, rank = instruction.operands
    inside = builder.temporary(width)
    kept = ((1 << 24) - 1) | (0 if "shared::cluster" in instruction.modifiers else _WINDOW)
    mask = builder.constant(kept, width)
    bits = f"b{8 * width}"
    builder.step(f"and.{bits}", [inside, builder.source(address, type_), mask], always=True)
    shifted = builder.temporary(width)
    number = builder.source(rank, "u32")
    if width == 8:
        number = builder.fitted(number, 8)
    places = [shifted, number, builder.constant(24, 4)]
    builder.step(f"shl.{bits}", places, always=True)
    builder.step(f"or.{bits}", [builder.result(destination, type_), inside, shifted])


MEMORY_ACCESS: dict[str, Decode] = {
    "cvta": _cvta,
    "ld": _access,
    "ldu": _access,
    "st": _st,
    "atom": _atom,
    "red": _atom,
    "fence": _fence,
    "membar": _fence,
    "mapa": _mapa,
    "getctarank": _getctarank,
    "isspacep": _isspacep,
    "createpolicy": _createpolicy,
}
