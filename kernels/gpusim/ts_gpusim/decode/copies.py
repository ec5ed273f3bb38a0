# SPDX-License-Identifier: MIT
"""cp.async, cp.async.bulk and cp.async.bulk.tensor, with their reductions."""

from __future__ import annotations

from collections.abc import Sequence

from ts_gpusim.decode.builder import Builder, Place
from ts_gpusim.decode.families import immediate
from ts_gpusim.ptx.syntax import Address, Instruction, Operand

_MULTICAST = 1 << 16
_BY_ROWS = 1 << 17
_NOINC = 1 << 8
_OF_SOURCES = 1 << 16
# In the order of machine/reductions.h.
_REDUCTIONS = ("", "add", "min", "max", "inc", "dec", "and", "or", "xor")
_NUMBERS = ("u32", "s32", "u64", "s64", "f16", "bf16", "f32", "f64")
_UNSIGNED = {"b32": "u32", "b64": "u64"}


def copy(builder: Builder, instruction: Instruction) -> None:
    modifiers = _without_reduce(instruction)
    if modifiers[1] != "bulk":
        return _cp_async(builder, instruction)
    what = modifiers[2]
    if what == "commit_group":
        return builder.step("cp.async.bulk.commit_group", [])
    if what == "wait_group":
        allowed = immediate(builder, instruction.operands[0])
        if "read" in modifiers:
            allowed |= _OF_SOURCES
        return builder.step("cp.async.bulk.wait_group", [], modifiers=allowed)
    if what == "prefetch":
        return builder.step("nop", [])
    if what == "tensor":
        return _tensor(builder, instruction)
    _bulk(builder, instruction)


def _without_reduce(instruction: Instruction) -> tuple[str, ...]:
    """So that the modifiers of cp.reduce.async stand where those of cp.async do."""
    modifiers = instruction.modifiers
    return modifiers[1:] if modifiers[0] == "reduce" else modifiers


def _reduction(instruction: Instruction) -> int:
    """The bits that say what is done to an element, and to one of which type; 0 for a copy."""
    modifiers = instruction.modifiers
    if modifiers[0] != "reduce":
        return 0
    flags = next(_REDUCTIONS.index(m) for m in modifiers if m in _REDUCTIONS) << 20
    type_ = _UNSIGNED.get(modifiers[-1], modifiers[-1])
    if type_ in _NUMBERS:  # a tensor map has the type itself
        flags |= _NUMBERS.index(type_) << 24
    return flags


def _narrow(places: list[Place]) -> int:
    """A bit for each operand whose address is a 32-bit register."""
    return sum(1 << i for i, place in enumerate(places) if place.width == 4)


def _drop_hint(instruction: Instruction) -> list[Operand]:
    operands = list(instruction.operands)
    if "L2::cache_hint" in instruction.modifiers:
        operands.pop(-2 if "cp_mask" in instruction.modifiers else -1)
    return operands


def _mask(builder: Builder, operands: Sequence[Operand]) -> Place:
    """Of the CTAs of a multicast, or of the bytes of .cp_mask."""
    if not operands:
        raise builder.error("the operand with the mask is missing: give one of 16 bits")
    return builder.source(operands[0], "u16")


def _cp_async(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    operands = _drop_hint(instruction)
    if modifiers[1] == "commit_group":
        return builder.step("cp.async.commit_group", [])
    if modifiers[1] == "wait_all":
        return builder.step("cp.async.wait_group", [], modifiers=-1)
    if modifiers[1] == "wait_group":
        allowed = immediate(builder, operands[0])
        return builder.step("cp.async.wait_group", [], modifiers=allowed)
    if modifiers[1] == "mbarrier":
        barrier = builder.address(operands[0])
        flags = _narrow([barrier]) | (_NOINC if "noinc" in modifiers else 0)
        return builder.step("cp.async.mbarrier.arrive", [barrier], modifiers=flags)
    to, from_, size, *rest = operands
    places = [builder.address(to), builder.address(from_)]
    bytes_ = immediate(builder, size)
    copied = builder.source(rest[0], "u32") if rest else builder.constant(bytes_, 4)
    flags = _narrow(places) | bytes_ << 8
    builder.step("cp.async", [*places, copied], modifiers=flags)


def _bulk(builder: Builder, instruction: Instruction) -> None:
    modifiers = _without_reduce(instruction)
    operands = _drop_hint(instruction)
    to, from_, size, *rest = operands
    places = [builder.address(to), builder.address(from_)]
    flags = _narrow(places) | _reduction(instruction)
    places.append(builder.source(size, "u32"))
    spaces = [m.split("::")[0] for m in modifiers[2:4]]
    if spaces == ["global", "shared"]:
        if "cp_mask" in modifiers:
            flags |= _MULTICAST
            places.append(_mask(builder, rest))
        return builder.step("cp.async.bulk.store", places, modifiers=flags)
    places.append(builder.address(rest[0]))
    flags |= _narrow(places[3:]) << 3
    if spaces == ["shared", "shared"]:
        return builder.step("cp.async.bulk.between", places, modifiers=flags)
    if "multicast::cluster" in modifiers:
        flags |= _MULTICAST
        places.append(_mask(builder, rest[1:]))
    builder.step("cp.async.bulk.load", places, modifiers=flags)


def _tensor(builder: Builder, instruction: Instruction) -> None:
    modifiers = _without_reduce(instruction)
    operands = _drop_hint(instruction)
    if unknown := next((m for m in modifiers if m.startswith("im2col")), None):
        raise builder.error(
            f".{unknown} is not executed: how such a tensor map is laid out is not published"
        )
    by_rows = "tile::gather4" in modifiers or "tile::scatter4" in modifiers
    if by_rows and modifiers[3] != "2d":
        raise builder.error(f"four rows are of a tensor of 2 dimensions, not of .{modifiers[3]}")
    rank = 5 if by_rows else int(modifiers[3].removesuffix("d"))
    loads = modifiers[4].startswith("shared")
    tensor = next(o for o in operands if isinstance(o, Address) and o.coordinates)
    map_ = builder.address(Address(tensor.base, tensor.offset))
    coordinates = [builder.source(c, "s32") for c in tensor.coordinates]
    if len(coordinates) != rank:
        wanted = "a column and four rows" if by_rows else f"{rank} dimensions"
        raise builder.error(f"{len(coordinates)} coordinates are given for {wanted}")
    rows = _BY_ROWS if by_rows else 0
    if loads:
        to, _, barrier, *mask = operands
        places = [builder.address(to), map_]
        flags = _narrow(places) | rank << 8 | rows
        announced = builder.address(barrier)
        if announced.width == 4:
            flags |= 1 << (2 + rank)
        places += [*coordinates, announced]
        if "multicast::cluster" in modifiers:
            flags |= _MULTICAST
            places.append(_mask(builder, mask))
        return builder.step("cp.async.bulk.tensor.load", places, modifiers=flags)
    source = builder.address(operands[1])
    flags = _narrow([map_]) | rank << 8 | rows | _reduction(instruction)
    if source.width == 4:
        flags |= 1 << (1 + rank)
    builder.step("cp.async.bulk.tensor.store", [map_, *coordinates, source], modifiers=flags)
