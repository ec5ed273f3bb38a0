# SPDX-License-Identifier: MIT
"""Control flow, barriers, and what threads of a warp tell each other (PTX ISA 9.7.12, 9.7.13)."""

from __future__ import annotations

from ts_gpusim.decode.builder import SINK, Builder
from ts_gpusim.decode.fields import (
    COMBINATIONS,
    NEGATED,
    Decode,
    immediate,
    narrow,
    pair_of,
    type_of,
)
from ts_gpusim.ptx.syntax import (
    Address,
    Function,
    Guard,
    Instruction,
    Label,
    PredicatePair,
    Register,
)


def _nop(builder: Builder, instruction: Instruction) -> None:
    builder.step("nop", [])


def _bra(builder: Builder, instruction: Instruction) -> None:
    (label,) = instruction.operands
    builder.step("bra", [], target=label.name)  # type: ignore[union-attr]


def _brx(builder: Builder, instruction: Instruction) -> None:
    """brx.idx: a branch for each target of the list."""
    index, targets = instruction.operands
    place = builder.source(index, "u32")
    assert isinstance(targets, Label)
    if targets.name not in builder.body.branch_targets:
        raise builder.error(f"{targets.name} is no list of .branchtargets")
    for number, target in enumerate(builder.body.branch_targets[targets.name]):
        chosen = Register("%brx", "pred")
        places = [builder.result(chosen, "pred"), SINK, place, builder.constant(number, 4)]
        guard = instruction.guard
        if guard is None:
            builder.step("setp.eq.u32", places)
        else:
            places.append(builder.source(guard.predicate, "pred"))
            how = COMBINATIONS["and"] | (NEGATED if guard.negated else 0)
            builder.step("setp.eq.u32", places, modifiers=how, always=True)
        builder.step("bra", [], guard=Guard(chosen, negated=False), target=target)
    builder.step("brx.idx.no_target", [place])


def _exit(builder: Builder, instruction: Instruction) -> None:
    builder.step("exit", [])


def _ret(builder: Builder, instruction: Instruction) -> None:
    builder.step("return" if isinstance(builder.body, Function) else "exit", [])


def _trap(builder: Builder, instruction: Instruction) -> None:
    builder.step("trap", [])


def _barrier(builder: Builder, instruction: Instruction) -> None:
    """bar and barrier: named barriers, a warp's, a cluster's."""
    modifiers = [m for m in instruction.modifiers if m not in ("cta", "aligned")]
    operands = instruction.operands
    if modifiers[0] == "warp":
        return builder.step("bar.warp.sync", [builder.source(operands[0], "b32")])
    if modifiers[0] == "cluster":
        flags = _RELAXED if "relaxed" in modifiers else 0
        return builder.step(f"barrier.cluster.{modifiers[1]}", [], modifiers=flags)
    if modifiers[0] == "red":
        return _barrier_reduction(builder, instruction)
    if modifiers[0] not in ("sync", "arrive"):
        raise builder.not_executed(f".{modifiers[0]}")
    count = builder.source(operands[1], "u32") if len(operands) > 1 else SINK
    places = [builder.source(operands[0], "u32"), count]
    builder.step(f"bar.{modifiers[0]}", places)


def _barrier_reduction(builder: Builder, instruction: Instruction) -> None:
    """bar.red: how many threads have a true predicate, or whether all or any have."""
    destination, barrier, *threads, predicate = instruction.operands
    tally = next(m for m in instruction.modifiers if m in ("popc", "and", "or"))
    result = builder.result(destination, "u32" if tally == "popc" else "pred")
    count = builder.source(threads[0], "u32") if threads else SINK
    places = [builder.source(barrier, "u32"), count, result, builder.source(predicate, "pred")]
    builder.step(f"bar.red.{tally}", places)


_RELAXED, _DROP, _NO_COMPLETE = 4, 8, 16


def _mbarrier(builder: Builder, instruction: Instruction) -> None:
    modifiers = instruction.modifiers
    operands = instruction.operands
    what = modifiers[0]
    if what in ("init", "inval"):
        address = builder.address(operands[0])
        rest = [builder.source(o, "u32") for o in operands[1:]]
        return builder.step(f"mbarrier.{what}", [address, *rest], modifiers=narrow(address))
    if what in ("expect_tx", "complete_tx"):
        address = builder.address(operands[0])
        places = [address, builder.source(operands[1], "u32")]
        return builder.step(f"mbarrier.{what}", places, modifiers=narrow(address))
    if what in ("arrive", "arrive_drop"):
        state = SINK
        if not isinstance(operands[0], Address):
            state = builder.result(operands[0], "b64")
            operands = operands[1:]
        address = builder.address(operands[0])
        value = builder.source(operands[1], "u32") if len(operands) > 1 else SINK
        count, expected = (SINK, value) if "expect_tx" in modifiers else (value, SINK)
        places = [state, address, count, expected]
        flags = narrow(address) | (_DROP if what == "arrive_drop" else 0)
        flags |= _RELAXED if "relaxed" in modifiers else 0
        flags |= _NO_COMPLETE if "noComplete" in modifiers else 0
        return builder.step("mbarrier.arrive", places, modifiers=flags)
    if what == "pending_count":
        places = [builder.result(operands[0], "u32"), builder.source(operands[1], "b64")]
        return builder.step("mbarrier.pending_count", places)
    if what in ("try_wait", "test_wait"):
        parity = "parity" in modifiers
        address = builder.address(operands[1])
        phase = builder.source(operands[2], "u32" if parity else "b64")
        places = [builder.result(operands[0], "pred"), address, phase]
        name = f"mbarrier.{what}{'.parity' if parity else ''}"
        return builder.step(name, places, modifiers=narrow(address))
    raise builder.not_executed(f".{what}")


def _shfl(builder: Builder, instruction: Instruction) -> None:
    destination, *sources = instruction.operands
    first, second = pair_of(destination)
    places = [builder.result(first, "b32"), builder.result(second, "pred")]
    places += [builder.source(s, "b32") for s in sources]
    builder.step(f"shfl.{instruction.modifiers[1]}", places)


def _vote(builder: Builder, instruction: Instruction) -> None:
    destination, source, mask = instruction.operands
    mode = instruction.modifiers[1]
    result = builder.result(destination, "b32" if mode == "ballot" else "pred")
    places = [result, builder.source(source, "pred"), builder.source(mask, "b32")]
    builder.step(f"vote.{mode}", places)


def _match(builder: Builder, instruction: Instruction) -> None:
    type_ = type_of(instruction)
    destination, source, mask = instruction.operands
    first, second = pair_of(destination)
    places = [builder.result(first, "b32"), builder.result(second, "pred")]
    places += [builder.source(source, type_), builder.source(mask, "b32")]
    builder.step(f"match.{instruction.modifiers[0]}.{type_}", places)


def _redux(builder: Builder, instruction: Instruction) -> None:
    type_ = type_of(instruction)
    destination, source, mask = instruction.operands
    places = [builder.result(destination, type_), builder.source(source, type_)]
    suffix = "".join(f".{m.lower()}" for m in instruction.modifiers if m in ("abs", "NaN"))
    name = f"redux.{instruction.modifiers[1]}{suffix}.{type_}"
    builder.step(name, [*places, builder.source(mask, "b32")])


def _elect(builder: Builder, instruction: Instruction) -> None:
    destination, mask = instruction.operands
    assert isinstance(destination, PredicatePair)
    places = [builder.result(destination.first, "b32"), builder.result(destination.second, "pred")]
    builder.step("elect", [*places, builder.source(mask, "b32")])


def _activemask(builder: Builder, instruction: Instruction) -> None:
    builder.step("activemask", [builder.result(instruction.operands[0], "b32")])


_REGISTERS = range(24, 257, 8)


def _setmaxnreg(builder: Builder, instruction: Instruction) -> None:
    count = immediate(builder, instruction.operands[0])
    if count not in _REGISTERS:
        raise builder.error(f"{count} registers are no multiple of 8 from 24 to 256")
    builder.step(f"setmaxnreg.{instruction.modifiers[0]}", [], modifiers=count)


_BITS_OF_AXIS = ("get_first_ctaid::x", "get_first_ctaid::y", "get_first_ctaid::z")


def _cluster_launch(builder: Builder, instruction: Instruction) -> None:
    """clusterlaunchcontrol: try_cancel, and what query_cancel tells of its response."""
    modifiers = instruction.modifiers
    if modifiers[0] == "try_cancel":
        places = [builder.address(operand) for operand in instruction.operands]
        flags = sum(1 << i for i, place in enumerate(places) if place.width == 4)
        flags |= 4 if "multicast::cluster::all" in modifiers else 0
        return builder.step("clusterlaunchcontrol.try_cancel", places, modifiers=flags)
    destination, given = instruction.operands
    response = builder.source(given, "b128")
    if modifiers[1] == "is_canceled":
        places = [builder.result(destination, "pred"), response]
        return builder.step("clusterlaunchcontrol.is_canceled", places)
    axes = [SINK, SINK, SINK]
    if modifiers[1] in _BITS_OF_AXIS:
        axes[_BITS_OF_AXIS.index(modifiers[1])] = builder.result(destination, "b32")
    else:
        elements = builder.vector(destination)
        if len(elements) != 4:
            raise builder.error(f"{len(elements)} registers are given for a vector of 4")
        axes = [builder.result(element, "b32") for element in elements[:3]]
    builder.step("clusterlaunchcontrol.get_first_ctaid", [*axes, response])


THREADS: dict[str, Decode] = {
    "bra": _bra,
    "brx": _brx,
    "ret": _ret,
    "exit": _exit,
    "trap": _trap,
    "bar": _barrier,
    "barrier": _barrier,
    "mbarrier": _mbarrier,
    "shfl": _shfl,
    "vote": _vote,
    "match": _match,
    "redux": _redux,
    "elect": _elect,
    "activemask": _activemask,
    # Hints, and what orders launches, which run in turn.
    **dict.fromkeys(("prefetch", "prefetchu", "discard"), _nop),
    **dict.fromkeys(("applypriority", "griddepcontrol", "nanosleep", "pmevent"), _nop),
    "setmaxnreg": _setmaxnreg,
    "clusterlaunchcontrol": _cluster_launch,
}
