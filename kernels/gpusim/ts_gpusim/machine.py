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


@functools.lru_cache(maxsize=64)
def _decoded(ptx: str, name: str) -> tuple[Kernel, Decoded, ModuleVariables]:
    module, variables = _loaded(ptx)
    kernel = module.kernels[name]
    return kernel, decode(module, kernel, variables.addresses), variables


@dataclass(frozen=True)
class Run:
    """One launch, executed. `recording`: of a machine that records."""

    launch: Launch
    counters: Counters
    findings: tuple[Finding, ...]
    recording: Recording | None = None


class Machine:
    """Executes launches for `device(..., execute=Machine(...))`, and remembers what they did.

    `seed`: chooses the order of everything that may happen in several; a kernel that is right is
    right for every seed. `collect`: findings are only remembered; without it the first launch with
    one raises Fault when it has ended.

    `record`: also what each warp does in the time of a cost model (ts_gpusim/cost_model.py), which
    then chooses the order; the seed has no say. `ctas`: those whose timeline is kept, numbered in
    the grid with x fastest.
    """

    def __init__(
        self,
        seed: int = 0,
        collect: bool = False,
        record: bool = False,
        ctas: Sequence[int] = range(4),
    ) -> None:
        self.seed = seed
        self.collect = collect
        self.record = record
        self.ctas = ctas
        self.runs: list[Run] = []

    @property
    def findings(self) -> list[Finding]:
        return [finding for run in self.runs for finding in run.findings]

    def __call__(self, launch: Launch, memory: MemoryMap) -> None:
        """Fault if the kernel does what it must not; tensors are then as far as it had come, and
        so is the fault's recording."""
        run = _run(launch, memory, self.seed, self.ctas if self.record else None)
        self.runs.append(run)
        if run.findings and not self.collect:
            first, *others = run.findings
            more = f"\n  and {len(others)} more" if others else ""
            raise Fault(first.kind, first.sentence + more)


def execute(launch: Launch, memory: MemoryMap, seed: int = 0) -> Counters:
    """One launch, as a Machine does it."""
    machine = Machine(seed)
    machine(launch, memory)
    return machine.runs[0].counters


def _run(launch: Launch, memory: MemoryMap, seed: int, ctas: Sequence[int] | None) -> Run:
    kernel, decoded, variables = _decoded(launch.ptx, launch.kernel)
    size = max((p.offset + p.size for p in kernel.parameters), default=0)
    block = ctypes.create_string_buffer(size + 2 * _ALIGNMENT)
    begin = -(-ctypes.addressof(block) // _ALIGNMENT) * _ALIGNMENT
    for parameter, value in zip(kernel.parameters, launch.parameters, strict=True):
        ctypes.memmove(begin + parameter.offset, value, parameter.size)
    allocations = [(str(found), found.begin, found.size) for found in memory]
    allocations += variables.allocations
    allocations.append(("the kernel's parameters", begin, size))
    recorder = None
    if ctas is not None:
        recorder = make_recorder(cost_model(module_of(launch.ptx).target), ctas, _SPANS)
    try:
        result = _machine.launch(
            program=decoded.program,
            grid=launch.grid,
            block=launch.block,
            cluster=launch.cluster,
            dynamic_shared_bytes=launch.shared_bytes,
            parameters=begin,
            allocations=allocations,
            seed=seed,
            resident=launch.resident_blocks or 0,
            recorder=recorder,
        )
    except Fault as fault:
        if recorder is not None:
            fault.recording = recording_of(recorder, decoded.instructions)
        raise
    recording = None if recorder is None else recording_of(recorder, decoded.instructions)
    findings = tuple(Finding(*finding) for finding in result["findings"])
    return Run(launch, Counters.of(result["counters"]), findings, recording)
