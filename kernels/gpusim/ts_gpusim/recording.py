# SPDX-License-Identifier: MIT
"""Records a launch: what the machine's recorder saw, in the words of the report."""

from __future__ import annotations

import linecache
from collections.abc import Sequence

import numpy as np

from ts_gpusim import _machine
from ts_gpusim.cost_model import CostModel, Work
from ts_gpusim.ptx.syntax import Instruction as PtxInstruction
from ts_gpusim.report import schema
from ts_gpusim.roles import author_location, group_warps, name_roles

_LONGEST_TEXT = 96
_FLOP_OF_A_RESULT = 2 * 16  # a step of 32 bytes of K: 16 of bf16


def make_recorder(model: CostModel, drawn: Sequence[int], spans: int) -> _machine.Recorder:
    """`drawn`: numbers of the CTAs (x fastest) that get a timeline, of about `spans` spans."""
    copies = (model.copy_bytes, model.copy_latency)
    distributed = (model.distributed_bytes, model.distributed_latency)
    loads = (model.global_bytes, model.global_latency)
    return _machine.Recorder(
        pipe_cycles=[model.pipe_cycles[work] for work in Work],
        memories=[
            (model.shared_bytes, model.shared_latency),
            distributed,
            loads,
            (model.tensor_memory_bytes, model.tensor_memory_latency),
        ],
        engines=[copies, loads, distributed, (model.mma_results, model.mma_latency)],
        drawn=set(drawn),
        spans=spans,
    )


def recording_of(
    recorder: _machine.Recorder, instructions: Sequence[PtxInstruction | None]
) -> schema.Recording:
    """`instructions`: of each step of the program."""
    return _Builder(recorder, instructions).build()


class _Builder:
    def __init__(
        self, recorder: _machine.Recorder, instructions: Sequence[PtxInstruction | None]
    ) -> None:
        self._ctas = recorder.ctas()
        self._waits = recorder.waits()
        self._steps = instructions
        warps = recorder.warps()
        self._executed = [executed for executed, _ in warps]
        self._busy = [busy for _, busy in warps]
        self._groups = group_warps(self._executed)
        self._role_of = {warp: r for r, group in enumerate(self._groups) for warp in group}
        self._by_role = np.array(
            [np.sum([self._executed[w] for w in g], axis=0) for g in self._groups]
        )
        self._files: dict[str, int] = {}
        self._code: dict[str, str] = {}
        self._listed: dict[int, int] = {}  # by the first step of an instruction
        self._instructions: list[schema.Instruction] = []
        self._first = _first_steps(instructions)

    def build(self) -> schema.Recording:
        for step in np.flatnonzero(self._by_role.sum(axis=0)):
            self._instruction(int(step))
        cta_cycles = sum(end - begin for _, _, begin, end, *_ in self._ctas)
        busy = {
            name: sum(cta[4][i] for cta in self._ctas) / max(cta_cycles, 1)
            for i, name in enumerate(schema.ENGINES)
        }
        return schema.Recording(
            cycles=max((end for _, _, _, end, *_ in self._ctas), default=0),
            cta_cycles=cta_cycles,
            ctas=len(self._ctas),
            engine_busy={name: round(share, 4) for name, share in busy.items() if share},
            roles=self._roles(),
            waits=self._all_waits(),
            timelines=[self._timeline(*cta) for cta in self._ctas if cta[5]],
            instructions=self._instructions,
            files=list(self._files),
            code=self._code,
        )

    def _roles(self) -> list[schema.Role]:
        names = name_roles(self._groups, self._executed, self._steps)
        roles = []
        for number, (name, group) in enumerate(zip(names, self._groups, strict=True)):
            busy = np.sum([self._busy[warp] for warp in group], axis=0)
            roles.append(
                schema.Role(
                    name=name,
                    warps=group,
                    instructions=int(self._by_role[number].sum()),
                    busy={w.name.lower(): int(busy[w]) for w in Work if busy[w]},
                    waiting=sum(wait[5] for wait in self._waits if wait[0] in group),
                )
            )
        return roles

    def _all_waits(self) -> list[schema.Wait]:
        """By role, the longest first."""
        sums: dict[tuple[int, int, str, int], list[int]] = {}
        for warp, step, cause, barrier, times, cycles, longest in self._waits:
            name = self._barrier(step, barrier)
            key = (self._role_of[warp], self._instruction(step), name, self._instruction(cause))
            total = sums.setdefault(key, [0, 0, 0])
            total[0] += times
            total[1] += cycles
            total[2] = max(total[2], longest)
        waits = [schema.Wait(*key, *total) for key, total in sums.items()]
        return sorted(waits, key=lambda wait: -wait.cycles)

    def _timeline(
        self,
        index: tuple[int, int, int],
        rank: int,
        begin: int,
        end: int,
        _busy: list[int],
        _drawn: bool,
        warps: list[list[tuple[int, ...]]],
        engines: list[list[tuple[int, ...]]],
    ) -> schema.CtaTimeline:
        spans = [[self._span(*span) for span in warp] for warp in warps]
        done = [
            schema.Engine(name, [self._operation(name, *operation) for operation in operations])
            for name, operations in zip(schema.ENGINES, engines, strict=True)
            if operations
        ]
        pieces = sum(span.pieces for warp in spans for span in warp)
        begun = sum(operation.operations for engine in done for operation in engine.operations)
        drawn = sum(map(len, spans)) + sum(len(engine.operations) for engine in done)
        shortened = ""
        if pieces + begun > drawn:
            shortened = (
                f"{pieces + begun:,} spans are drawn as {drawn:,}: short ones are merged with "
                "their neighbours, and shown as the longest of them"
            )
        x, y, z = index
        return schema.CtaTimeline((x, y, z), rank, begin, end, spans, done, shortened)

    def _span(
        self,
        begin: int,
        end: int,
        activity: int,
        step: int,
        cause: int,
        barrier: int,
        waited: int,
        pieces: int,
    ) -> schema.Span:
        waits = schema.ACTIVITIES[activity] == "wait"
        ended_by = self._instruction(cause) if waits else -1
        name = self._barrier(step, barrier) if waits else ""
        at = self._instruction(step)
        return schema.Span(begin, end, activity, at, ended_by, name, waited, pieces)

    def _operation(
        self,
        engine: str,
        issued: int,
        begin: int,
        free: int,
        end: int,
        step: int,
        warp: int,
        amount: int,
        operations: int,
    ) -> schema.Operation:
        if engine == "tensor cores":
            amount *= _FLOP_OF_A_RESULT
        at = self._instruction(step)
        return schema.Operation(issued, begin, free, end, at, warp, amount, operations)

    def _barrier(self, step: int, barrier: int) -> str:
        """What was waited for, in words."""
        instruction = self._steps[step]
        if instruction is None:
            return "the end"
        opcode, modifiers = instruction.opcode, instruction.modifiers
        if opcode == "mbarrier":
            return f"mbarrier {barrier:#x}"
        if opcode in ("bar", "barrier"):
            return "cluster barrier" if "cluster" in modifiers else f"barrier {barrier}"
        if opcode == "tcgen05":
            return f"tcgen05.{modifiers[0]}"
        if opcode in ("cp", "wgmma") and {"wait_group", "wait_all"} & set(modifiers):
            return "copies" if opcode == "cp" else "wgmma"
        return "a loaded register"

    def _instruction(self, step: int) -> int:
        """The number of the instruction that the step belongs to."""
        first = self._first[step]
        if first in self._listed:
            return self._listed[first]
        self._listed[first] = len(self._instructions)
        self._instructions.append(self._describe(first))
        return self._listed[first]

    def _describe(self, step: int) -> schema.Instruction:
        executed = [int(count) for count in self._by_role[:, step]]
        instruction = self._steps[step]
        if instruction is None:
            return schema.Instruction(0, "the end of the kernel", -1, 0, executed)
        text = instruction.text
        if len(text) > _LONGEST_TEXT:
            text = text[: _LONGEST_TEXT - 3] + "..."
        if instruction.location is None:
            return schema.Instruction(instruction.line, text, -1, 0, executed)
        at = author_location(instruction.location)
        file = self._files.setdefault(at.file, len(self._files))
        key = f"{file}:{at.line}"
        if key not in self._code:
            self._code[key] = linecache.getline(at.file, at.line).strip()[:_LONGEST_TEXT]
        return schema.Instruction(instruction.line, text, file, at.line, executed)


def _first_steps(instructions: Sequence[PtxInstruction | None]) -> list[int]:
    """For each step, the first one of its instruction."""
    first: list[int] = []
    for step, instruction in enumerate(instructions):
        same = step > 0 and instruction is not None and instruction is instructions[step - 1]
        first.append(first[-1] if same else step)
    return first
