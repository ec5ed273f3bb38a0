# SPDX-License-Identifier: MIT
"""Addresses, ld, st, atom and red (PTX ISA 9.7.9.8 to 9.7.9.24, 9.7.13.5, 9.7.13.6)."""

from __future__ import annotations

from ts_gpusim.decode.builder import SINK, Builder
from ts_gpusim.decode.fields import SIGNED, Decode, narrow, type_of
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
    if "bulk" in instruction.modifiers:
        raise builder.not_executed(".bulk")
    if "async" in instruction.modifiers:
        return _store_async(builder, instruction)
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


def _store_async(builder: Builder, instruction: Instruction) -> None:
    """st.async to shared memory of the cluster, which an mbarrier beside it counts."""
    if "release" in instruction.modifiers:
        raise builder.not_executed("a global .async")
    to, value, barrier = instruction.operands
    type_ = type_of(instruction)
    values = [builder.source(element, type_) for element in builder.vector(value)]
    vector = next((int(m[1]) for m in instruction.modifiers if m in ("v2", "v4")), 1)
    if len(values) != vector:
        raise builder.error(f"{len(values)} registers are given for {vector} elements")
    addresses = [builder.address(to), builder.address(barrier)]
    flags = sum(1 << i for i, place in enumerate(addresses) if place.width == 4)
    flags |= vector << 8 | builder.width(type_) << 12
    builder.step("st.async", [*addresses, *values], modifiers=flags)


_ATOMS = ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")


def _atom(builder: Builder, instruction: Instruction) -> None:
    """atom, and red, which has no result."""
    if "async" in instruction.modifiers:
        raise builder.not_executed(".async")
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
    """fence and membar. What orders mbarriers, tensor maps and aliases is in order in every run."""
    modifiers = instruction.modifiers
    if modifiers[0] == "proxy":
        spaces = _PROXY_SPACES.get(".".join(modifiers[1:]), 0)
        name = "fence.proxy.async" if spaces else "nop"
        return builder.step(name, [], modifiers=spaces)
    if modifiers[0] == "mbarrier_init":
        return builder.step("nop", [])
    order = next((m for m in ("acquire", "release") if m in modifiers), "acq_rel")
    scope = next(s for m in modifiers if (s := _LEVELS.get(m, m)) in _SCOPES)
    order_bits = _ORDERS.index(order) << 16 | _SCOPES.index(scope) << 20
    builder.step("fence", [], modifiers=order_bits)


def _createpolicy(builder: Builder, instruction: Instruction) -> None:
    result = builder.result(instruction.operands[0], "b64")
    builder.step("mov.b64", [result, builder.constant(0, 8)])


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
    "st": _access,
    "atom": _atom,
    "red": _atom,
    "fence": _fence,
    "membar": _fence,
    "mapa": _mapa,
    "createpolicy": _createpolicy,
}
