# SPDX-License-Identifier: MIT
"""Control flow, barriers, and what threads of a warp tell each other (PTX ISA 9.7.12, 9.7.13)."""

from __future__ import annotations

from ts_gpusim.decode.builder import SINK, Builder
from ts_gpusim.decode.fields import COMBINATIONS, NEGATED, Decode, narrow, pair_of, type_of
from ts_gpusim.ptx.syntax import Address, Guard, Instruction, Label, PredicatePair, Register


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
    for number, target in enumerate(builder.kernel.branch_targets[targets.name]):
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


def _ret(builder: Builder, instruction: Instruction) -> None:
    builder.step("exit", [])


def _trap(builder: Builder, instruction: Instruction) -> None:
    builder.step("trap", [])


def _barrier(builder: Builder, instruction: Instruction) -> None:
    """bar and barrier: named barriers, a warp's, a cluster's."""
    modifiers = [m for m in instruction.modifiers if m not in ("cta", "aligned")]
    operands = instruction.operands
    if modifiers[0] == "warp":
        return builder.step("bar.warp.sync", [builder.source(operands[0], "b32")])
    if modifiers[0] == "cluster":
        return builder.step(f"barrier.cluster.{modifiers[1]}", [])
    if modifiers[0] not in ("sync", "arrive"):
        raise builder.not_executed(f".{modifiers[0]}")
    count = builder.source(operands[1], "u32") if len(operands) > 1 else SINK
    places = [builder.source(operands[0], "u32"), count]
    builder.step(f"bar.{modifiers[0]}", places)


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
    if what == "arrive":
        if "noComplete" in modifiers:
            raise builder.not_executed(".noComplete")
        state = SINK
        if not isinstance(operands[0], Address):
            state = builder.result(operands[0], "b64")
            operands = operands[1:]
        address = builder.address(operands[0])
        value = builder.source(operands[1], "u32") if len(operands) > 1 else SINK
        count, expected = (SINK, value) if "expect_tx" in modifiers else (value, SINK)
        places = [state, address, count, expected]
        return builder.step("mbarrier.arrive", places, modifiers=narrow(address))
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


THREADS: dict[str, Decode] = {
    "bra": _bra,
    "brx": _brx,
    "ret": _ret,
    "exit": _ret,
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
    **dict.fromkeys(("applypriority", "setmaxnreg", "griddepcontrol", "nanosleep"), _nop),
}
