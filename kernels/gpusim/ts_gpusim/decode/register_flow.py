# SPDX-License-Identifier: MIT
"""Which registers may be used too early on some way through a kernel.

Too early is: before anything has written them; after a tcgen05.ld that fills them and before
tcgen05.wait::ld; after a wgmma that accumulates into or reads them and before
wgmma.wait_group; in a wgmma, after another instruction has written them and before wgmma.fence.
Forward dataflow over the program's steps finds the instructions where that is possible. In a
correct kernel these are few or none, and only for their registers the machine keeps track of what
really happens.

A mov is no use: what it copies is as unwritten and as unfinished as before. (Compilers place them
freely, and the assembler removes them.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# How an instruction uses a register: as machine/watched_registers.h has them.
READ, WRITE, LOAD, ACCUMULATE, MULTIPLY, COPY, COPY_PART, COPY_TO = range(8)

_NEVER_GOES_ON = frozenset({"exit", "trap", "return"})


@dataclass(frozen=True)
class FlowStep:
    """What of a step matters here. Registers are numbers, used in the order given."""

    handler: str
    uses: tuple[tuple[int, int], ...]  # register, how
    guarded: bool
    target: int | None  # step to which it may branch


@dataclass(frozen=True)
class _Block:
    begin: int
    end: int
    successors: tuple[int, ...]  # blocks


def suspects(steps: Sequence[FlowStep]) -> set[int]:
    """The registers for which the machine has to keep track."""
    blocks = _blocks(steps)
    everything = 0
    for step in steps:
        for register, _ in step.uses:
            everything |= 1 << register
    found = 0
    copies = set()
    multiplies = any(use in (ACCUMULATE, MULTIPLY) for step in steps for _, use in step.uses)
    for problem in (_unwritten, _unfinished, *((_uncommitted, _unfenced) if multiplies else ())):
        entry = everything if problem is _unwritten else 0
        effects = [problem(step) for step in steps]
        for block, possible in zip(blocks, _solve(blocks, effects, entry), strict=True):
            for effect in effects[block.begin : block.end]:
                found |= effect.needs & possible
                if effect.copied & possible:
                    copies.add((effect.copied & possible, effect.copies))
                possible = effect.after(possible)
    before = -1
    while found != before:  # where what is copied comes from
        before = found
        for copied, to in copies:
            found |= copied if to & found else 0
    return set(_members(found))


@dataclass(frozen=True)
class _Effect:
    """Of a step, on the set of registers for which something is possible."""

    needs: int = 0  # uses that must not meet it
    ends: int = 0
    begins: int = 0
    copied: int = 0  # if it is possible for one of these, then
    copies: int = 0  # for these, too

    def after(self, possible: int) -> int:
        begins = self.begins | (self.copies if possible & self.copied else 0)
        return possible & ~self.ends | begins


def _mask(step: FlowStep, *uses: int) -> int:
    mask = 0
    for register, use in step.uses:
        if use in uses:
            mask |= _BITS[register] if register < len(_BITS) else 1 << register
    return mask


_BITS = tuple(1 << register for register in range(8192))  # long numbers, made once


_ALL = ~0


def _unwritten(step: FlowStep) -> _Effect:
    # A wgmma reads D, or not, by a predicate.
    return _Effect(
        needs=_mask(step, READ, MULTIPLY, ACCUMULATE),
        ends=0 if step.guarded else _mask(step, WRITE, LOAD, ACCUMULATE, COPY_TO),
        copied=_mask(step, COPY),
        copies=_mask(step, COPY_TO),
    )


def _unfinished(step: FlowStep) -> _Effect:
    if step.handler in ("tcgen05.wait.ld", "wgmma.wait_all") and not step.guarded:
        return _Effect(ends=_ALL)
    # A wgmma may meet registers of the wgmma before.
    return _Effect(
        needs=_mask(step, READ, WRITE, LOAD, COPY_TO),
        begins=_mask(step, LOAD, ACCUMULATE, MULTIPLY),
        copied=_mask(step, COPY, COPY_PART),
        copies=_mask(step, COPY_TO),
    )


def _uncommitted(step: FlowStep) -> _Effect:
    """wgmma.wait_group waits for what wgmma.commit_group has put into a group."""
    if step.handler == "wgmma.commit_group" and not step.guarded:
        return _Effect(ends=_ALL)
    return _Effect(
        needs=_mask(step, READ, WRITE, COPY_TO), begins=_mask(step, ACCUMULATE, MULTIPLY)
    )


def _unfenced(step: FlowStep) -> _Effect:
    if step.handler == "wgmma.fence" and not step.guarded:
        return _Effect(ends=_ALL)
    return _Effect(
        needs=_mask(step, ACCUMULATE, MULTIPLY), begins=_mask(step, WRITE, LOAD, COPY_TO)
    )


def _solve(blocks: Sequence[_Block], effects: Sequence[_Effect], entry: int) -> list[int]:
    """What is possible where each block begins."""
    before = [0] * len(blocks)
    before[0] = entry
    reached = {0}
    waiting = [0]
    while waiting:
        number = waiting.pop()
        block, possible = blocks[number], before[number]
        for effect in effects[block.begin : block.end]:
            possible = effect.after(possible)
        for successor in block.successors:
            if successor not in reached or possible & ~before[successor]:
                reached.add(successor)
                before[successor] |= possible
                waiting.append(successor)
    return before


def _blocks(steps: Sequence[FlowStep]) -> list[_Block]:
    begins = {0}
    for i, step in enumerate(steps):
        if step.target is not None:
            begins.add(step.target)
        if step.target is not None or step.handler in _NEVER_GOES_ON:
            begins.add(i + 1)
    ordered = sorted(begin for begin in begins if begin < len(steps))
    number = {begin: i for i, begin in enumerate(ordered)}
    blocks = []
    for begin, end in zip(ordered, [*ordered[1:], len(steps)], strict=True):
        last = steps[end - 1]
        successors = []
        if last.target is not None:
            successors.append(number[last.target])
        goes_on = last.guarded or (last.handler not in _NEVER_GOES_ON and last.handler != "bra")
        if goes_on and end < len(steps):
            successors.append(number[end])
        blocks.append(_Block(begin, end, tuple(successors)))
    return blocks


def _members(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
