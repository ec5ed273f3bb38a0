# SPDX-License-Identifier: MIT
"""Is a mutation of a kernel noticed? If not: why does the synchronisation order nothing?

A launch is run as it is, then with each mutation. What the machine finds in the mutant and not in
the kernel is notice. For a mutation that is not noticed the machine is asked what the original
instruction is good for: it is *muted*, so that the run is the same but for the order that it makes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ts_gpusim.decode import decode
from ts_gpusim.decode.module_variables import lay_out
from ts_gpusim.faults import Fault
from ts_gpusim.launch import Launch
from ts_gpusim.machine import Edge, Loaded, Machine
from ts_gpusim.memory import MemoryMap
from ts_gpusim.mutations.mutators import Mutation, mutations
from ts_gpusim.ptx.parser import parse
from ts_gpusim.ptx.syntax import Instruction, Kernel

Place = tuple[str, ...]  # a finding's kind and the PTX lines that it names


@dataclass(frozen=True)
class Verdict:
    """`noticed`: the kinds of what is found. Otherwise `why` is a key of `REASONS`, and `detail`
    says where what the instruction teaches is learned as well."""

    mutation: Mutation
    instruction: Instruction
    noticed: tuple[str, ...] = ()
    why: str = ""
    detail: str = ""

    def __str__(self) -> str:
        mutation = self.mutation
        outcome = ", ".join(self.noticed) or f"{self.why} {self.detail}".rstrip()
        return (
            f"PTX line {self.instruction.line} ({self.instruction.location}): "
            f"{mutation.operation}, {mutation.change}: {outcome}"
        )


# Operations that neither acquire nor release by themselves.
_WITHOUT_EDGES = {"mbarrier init", "mbarrier init fence", "commit_group", "wait_group",
                  "tcgen05.fence", "wgmma.fence"}  # fmt: skip
_ARRIVALS = {"mbarrier arrive", "mbarrier arrive of copies", "expect_tx", "commit"}
REASONS = {
    "not executed": "no thread comes there in this launch",
    "redundant": "whoever executes it knows all that it teaches already, every time",
    "replaced": "what stands in its place orders the same on these problems",
    "unneeded": "no two accesses of this launch are ordered by it alone",
    "equivalent": "all threads that meet at the barrier execute this instruction, so they agree",
    "masked": "the result is wrong, but its races are of instructions that race in the kernel, too",
    "unexplained": "a hole in a sanitizer",
}


@dataclass
class Trial:
    """Of one launch of a kernel. `snapshot`: what the launch has written, after each run."""

    launch: Launch
    memory: MemoryMap
    clear: Callable[[], None]
    snapshot: Callable[[], Any]
    seeds: tuple[int, ...] = (1,)
    known: set[Place] = field(default_factory=set)  # of the kernel itself
    _edges: dict[int, list[Edge]] = field(default_factory=dict)  # by PTX line
    _right: dict[int, Any] = field(default_factory=dict)  # by seed: what the kernel writes
    _mutes: dict[int, _Muted] = field(default_factory=dict)  # by pc
    _executed: dict[int, bool] = field(default_factory=dict)  # by index

    def __post_init__(self) -> None:
        self.module = parse(self.launch.ptx)
        self.kernel = self.module.kernels[self.launch.kernel]
        self.variables = lay_out(self.module)
        self._original = self._loaded(self.kernel)
        for seed in self.seeds:
            machine = Machine(seed, collect=True, observe_edges=True)
            found, self._right[seed] = self._run(machine, self._original)
            self.known |= found
            for edge in machine.runs[0].edges:
                self._edges.setdefault(_line(edge.text), []).append(edge)

    def mutations(self) -> list[Mutation]:
        return list(mutations(self.kernel))

    def judge(self, mutation: Mutation) -> Verdict:
        instruction = self.kernel.instructions[mutation.at]
        if not self._is_executed(mutation):
            return Verdict(mutation, instruction, why="not executed")
        mutant = self._loaded(mutation.apply(self.kernel))
        wrong = False
        for seed in self.seeds:
            found, written = self._run(Machine(seed, collect=True), mutant)
            if new := found - self.known:
                return Verdict(mutation, instruction, tuple(sorted({place[0] for place in new})))
            wrong |= written != self._right[seed]
        if wrong:
            known_race = any(place[0] == "race" for place in self.known)
            why = "masked" if known_race else "unexplained"
            return Verdict(mutation, instruction, why=why, detail="wrong result")
        why, detail = self._explain(mutation, instruction)
        return Verdict(mutation, instruction, why=why, detail=detail)

    def _explain(self, mutation: Mutation, instruction: Instruction) -> tuple[str, str]:
        if mutation.operation == "mbarrier init fence":
            return "unneeded", "another fence.mbarrier_init is of the same initialisations"
        if mutation.change == "dropped" and mutation.operation in _ARRIVALS:
            return "unneeded", "nobody waits for its phase: the mutant comes to its end"
        edges = self._edges.get(instruction.line, [])
        if not edges:
            return "unexplained", "it orders nothing"
        if re.match(r"barrier \d|unused barrier", mutation.change):
            return ("equivalent", "") if all(edge.alone for edge in edges) else ("replaced", "")
        if all(edge.taught == 0 and edge.released == 0 for edge in edges):
            return "redundant", f"{sum(edge.acquired for edge in edges)} times"
        muted = [self._muted(pc) for pc in sorted({edge.pc for edge in edges})]
        if kinds := sorted({kind for one in muted for kind in one.found}):
            # The order that the original makes is needed, and the mutant has it nevertheless.
            why = "unexplained" if mutation.change == "dropped" else "replaced"
            return why, f"muted: {', '.join(kinds)}"
        repaid = sum((one.repaid for one in muted), Counter[int]())
        where = [f"learned at line {line}, {times} times" for line, times in repaid.most_common(3)]
        if unpaid := sum(one.unpaid for one in muted):
            where.append(f"not learned again, {unpaid} times")
        return "unneeded", "; ".join(where)

    def _muted(self, pc: int) -> _Muted:
        """With the same seeds: every wait is as it was."""
        if pc not in self._mutes:
            muted = _Muted()
            for seed in self.seeds:
                machine = Machine(seed, collect=True, muted=pc)
                found, _ = self._run(machine, self._original)
                muted.found |= {place[0] for place in found - self.known}
                for run in machine.runs:
                    for edge in run.edges:
                        muted.repaid[_line(edge.text)] += edge.repaid
                    muted.unpaid += run.unpaid
            muted.repaid = +muted.repaid
            self._mutes[pc] = muted
        return self._mutes[pc]

    def _is_executed(self, mutation: Mutation) -> bool:
        instruction = self.kernel.instructions[mutation.at]
        if mutation.operation not in _WITHOUT_EDGES:
            return instruction.line in self._edges
        if mutation.at not in self._executed:
            trap = replace(instruction, opcode="trap", modifiers=(), operands=(), text="trap;")
            mutant = Mutation(mutation.at, "", "", {mutation.at: (trap,)}).apply(self.kernel)
            found, _ = self._run(Machine(self.seeds[0], collect=True), self._loaded(mutant))
            self._executed[mutation.at] = any(place[0] == "trap" for place in found)
        return self._executed[mutation.at]

    def _loaded(self, kernel: Kernel) -> Loaded:
        program = decode(self.module, kernel, self.variables.addresses)
        return kernel, program, self.variables

    def _run(self, machine: Machine, loaded: Loaded) -> tuple[set[Place], Any]:
        self.clear()
        found = set()
        try:
            machine.execute(loaded, self.launch, self.memory)
            found = {(f.kind, *_lines(f.sentence)) for f in machine.findings}
        except Fault as fault:
            found.add((fault.kind, *_lines(str(fault))))
        return found, self.snapshot()


@dataclass
class _Muted:
    """What became of a launch in which an instruction orders nothing."""

    found: set[str] = field(default_factory=set)
    repaid: Counter[int] = field(default_factory=Counter)  # by PTX line
    unpaid: int = 0


def _lines(sentence: str) -> Iterable[str]:
    return sorted(re.findall(r"PTX line (\d+)", sentence))


def _line(text: str) -> int:
    (line,) = _lines(text)
    return int(line)
