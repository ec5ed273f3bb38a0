# SPDX-License-Identifier: MIT
"""cp.async, cp.async.bulk and cp.async.bulk.tensor."""

from __future__ import annotations

from ts_gpusim.decode.builder import Builder, Place
from ts_gpusim.decode.families import immediate
from ts_gpusim.ptx.syntax import Address, Instruction, Operand

_MULTICAST = 1 << 16
_NOINC = 1 << 8


def copy(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    if modifiers[:2] == ("reduce", "async") or "reduce" in modifiers:
        raise builder.error("reductions are not executed yet")
    if modifiers[0] != "async":
        raise builder.error("the machine does not execute this yet")
    if modifiers[1] != "bulk":
        return _cp_async(builder, instruction)
    what = modifiers[2]
    if what == "commit_group":
        return builder.step("cp.async.bulk.commit_group", [])
    if what == "wait_group":
        allowed = immediate(builder, instruction.operands[0])
        return builder.step("cp.async.bulk.wait_group", [], modifiers=allowed)
    if what == "prefetch":
        return builder.step("nop", [])
    if what == "tensor":
        return _tensor(builder, instruction)
    _bulk(builder, instruction)


def _narrow(places: list[Place]) -> int:
    """A bit for each operand whose address is a 32-bit register."""
    return sum(1 << i for i, place in enumerate(places) if place.width == 4)


def _drop_hint(instruction: Instruction) -> list[Operand]:
    operands = list(instruction.operands)
    return operands[:-1] if "L2::cache_hint" in instruction.modifiers else operands


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
    modifiers = instruction.modifiers
    operands = _drop_hint(instruction)
    if "multicast::cluster" in modifiers:
        raise builder.error(".multicast::cluster is executed for tensors only yet")
    to, from_, size, *barrier = operands
    places = [builder.address(to), builder.address(from_)]
    flags = _narrow(places)
    places.append(builder.source(size, "u32"))
    spaces = [m.split("::")[0] for m in modifiers[2:4]]
    if spaces == ["global", "shared"]:
        return builder.step("cp.async.bulk.store", places, modifiers=flags)
    if spaces != ["shared", "global"]:
        raise builder.error("a bulk copy between shared memories is not executed yet")
    places.append(builder.address(barrier[0]))
    flags |= _narrow(places[3:]) << 3
    builder.step("cp.async.bulk.load", places, modifiers=flags)


def _tensor(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    operands = _drop_hint(instruction)
    for unknown in ("im2col", "tile::gather4", "tile::scatter4", "im2col::w", "im2col_no_offs"):
        if unknown in modifiers:
            raise builder.error(f".{unknown} is not executed yet")
    rank = int(modifiers[3].removesuffix("d"))
    loads = modifiers[4].startswith("shared")
    tensor = next(o for o in operands if isinstance(o, Address) and o.coordinates)
    map_ = builder.address(Address(tensor.base, tensor.offset))
    coordinates = [builder.source(c, "s32") for c in tensor.coordinates]
    if len(coordinates) != rank:
        raise builder.error(f"{len(coordinates)} coordinates are given for {rank} dimensions")
    if loads:
        to, _, barrier, *mask = operands
        places = [builder.address(to), map_]
        flags = _narrow(places) | rank << 8
        announced = builder.address(barrier)
        if announced.width == 4:
            flags |= 1 << (2 + rank)
        places += [*coordinates, announced]
        if "multicast::cluster" in modifiers:
            flags |= _MULTICAST
            places.append(builder.source(mask[0], "u16"))
        return builder.step("cp.async.bulk.tensor.load", places, modifiers=flags)
    source = builder.address(operands[1])
    flags = _narrow([map_]) | rank << 8
    if source.width == 4:
        flags |= 1 << (1 + rank)
    builder.step("cp.async.bulk.tensor.store", [map_, *coordinates, source], modifiers=flags)
