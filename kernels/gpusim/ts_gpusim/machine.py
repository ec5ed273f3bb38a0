# SPDX-License-Identifier: MIT
"""Executes launches: decodes a kernel once and runs it on the machine."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from ts_gpusim import _machine
from ts_gpusim.cost_model import cost_model
from ts_gpusim.counters import Counters
from ts_gpusim.decode import Decoded, decode
from ts_gpusim.decode.module_variables import ModuleVariables, lay_out
from ts_gpusim.faults import Fault, Finding
from ts_gpusim.launch import Launch
from ts_gpusim.memory import MemoryMap
from ts_gpusim.modules import module_of
from ts_gpusim.ptx.parser import parse
from ts_gpusim.ptx.syntax import Kernel, Module
from ts_gpusim.recording import make_recorder, recording_of
from ts_gpusim.report.schema import Recording

_ALIGNMENT = 128  # of the block of parameters: tensor maps are in it
_SPANS = 6000  # of a CTA's timeline: some 200 kB of JSON


@functools.lru_cache(maxsize=64)
def _loaded(ptx: str) -> tuple[Module, ModuleVariables]:
    module = parse(ptx)
    return module, lay_out(module)


Loaded = tuple[Kernel, Decoded, ModuleVariables]


@functools.lru_cache(maxsize=64)
def _decoded(ptx: str, name: str) -> Loaded:
    module, variables = _loaded(ptx)
    kernel = module.kernels[name]
    return kernel, decode(module, kernel, variables.addresses), variables


@dataclass(frozen=True)
class Edge:
    """What a synchronising instruction did: it told others, it learned from them.

    `taught`: how often it learned something that was not known there. `repaid`: how often what the
    muted instruction withheld was learned here. `alone`: all that met at a barrier executed this
    instruction.
    """

    pc: int
    text: str
    released: int
    acquired: int
    taught: int
    repaid: int
    alone: bool


@dataclass(frozen=True)
class Run:
    """One launch, executed. `recording`: of a machine that records."""

    launch: Launch
    counters: Counters
    findings: tuple[Finding, ...]
    recording: Recording | None = None
    edges: tuple[Edge, ...] = ()  # of a machine that observes them
    unpaid: int = 0  # agents that have not learned again what the muted instruction withheld


class Machine:
    """Executes launches for `device(..., execute=Machine(...))`, and remembers what they did.

    `seed`: chooses the order of everything that may happen in several; a kernel that is right is
    right for every seed. `collect`: findings are only remembered; without it the first launch with
    one raises Fault when it has ended.

    `record`: also what each warp does in the time of a cost model (ts_gpusim/cost_model.py), which
    then chooses the order; the seed has no say. `ctas`: those whose timeline is kept, numbered in
    the grid with x fastest.

    `observe_edges`: what each synchronising instruction is good for, `Run.edges`. `muted`: the
    `pc` of one of them, which waits as ever but orders nothing: the races are those of accesses
    that only it orders.
    """

    def __init__(
        self,
        seed: int = 0,
        collect: bool = False,
        record: bool = False,
        ctas: Sequence[int] = range(4),
        observe_edges: bool = False,
        muted: int | None = None,
    ) -> None:
        self.seed = seed
        self.collect = collect
        self.record = record
        self.ctas = ctas
        self.observe_edges = observe_edges or muted is not None
        self.muted = muted
        self.runs: list[Run] = []

    @property
    def findings(self) -> list[Finding]:
        return [finding for run in self.runs for finding in run.findings]

    def __call__(self, launch: Launch, memory: MemoryMap) -> None:
        """Fault if the kernel does what it must not; tensors are then as far as it had come, and
        so is the fault's recording."""
        self.execute(_decoded(launch.ptx, launch.kernel), launch, memory)

    def execute(self, loaded: Loaded, launch: Launch, memory: MemoryMap) -> None:
        """The same, with `loaded` in the place of the launch's PTX."""
        run = self._run(loaded, launch, memory)
        self.runs.append(run)
        if run.findings and not self.collect:
            first, *others = run.findings
            more = f"\n  and {len(others)} more" if others else ""
            raise Fault(first.kind, first.told + more)

    def _run(self, loaded: Loaded, launch: Launch, memory: MemoryMap) -> Run:
        kernel, decoded, variables = loaded
        size = max((p.offset + p.size for p in kernel.parameters), default=0)
        block = ctypes.create_string_buffer(size + 2 * _ALIGNMENT)
        begin = -(-ctypes.addressof(block) // _ALIGNMENT) * _ALIGNMENT
        for parameter, value in zip(kernel.parameters, launch.parameters, strict=True):
            ctypes.memmove(begin + parameter.offset, value, parameter.size)
        allocations = [(str(found), found.begin, found.size) for found in memory]
        allocations += variables.allocations
        allocations.append(("the kernel's parameters", begin, size))
        recorder = None
        if self.record:
            recorder = make_recorder(cost_model(module_of(launch.ptx).target), self.ctas, _SPANS)
        try:
            result = _machine.launch(
                program=decoded.program,
                grid=launch.grid,
                block=launch.block,
                cluster=launch.cluster,
                dynamic_shared_bytes=launch.shared_bytes,
                parameters=begin,
                allocations=allocations,
                seed=self.seed,
                resident=launch.resident_blocks or 0,
                recorder=recorder,
                observe=self.observe_edges,
                muted=-1 if self.muted is None else self.muted,
            )
        except Fault as fault:
            if recorder is not None:
                fault.recording = recording_of(recorder, decoded.instructions)
            raise
        return Run(
            launch,
            Counters.of(result["counters"]),
            tuple(Finding(*finding) for finding in result["findings"]),
            None if recorder is None else recording_of(recorder, decoded.instructions),
            tuple(Edge(*edge) for edge in result["edges"]),
            result["unpaid"],
        )


def execute(launch: Launch, memory: MemoryMap, seed: int = 0) -> Counters:
    """One launch, as a Machine does it."""
    machine = Machine(seed)
    machine(launch, memory)
    return machine.runs[0].counters
