# SPDX-License-Identifier: MIT
"""Executes launches: decodes a kernel once and runs it on the machine."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

from ts_gpusim import _machine
from ts_gpusim.decode import decode
from ts_gpusim.decode.module_variables import ModuleVariables, lay_out
from ts_gpusim.faults import Fault, Finding
from ts_gpusim.launch import Launch
from ts_gpusim.memory import MemoryMap
from ts_gpusim.ptx.parser import parse
from ts_gpusim.ptx.syntax import Kernel, Module

_ALIGNMENT = 128  # of the block of parameters: tensor maps are in it


@dataclass(frozen=True)
class Counters:
    """What a launch did; bytes are those that instructions name, not those that caches move."""

    instructions: int  # of warps
    mma_instructions: int
    mma_flops: int
    bulk_requests: int
    bulk_bytes_loaded: int
    bulk_bytes_stored: int
    global_bytes_loaded: int
    global_bytes_stored: int


@functools.lru_cache(maxsize=64)
def _loaded(ptx: str) -> tuple[Module, ModuleVariables]:
    module = parse(ptx)
    return module, lay_out(module)


@functools.lru_cache(maxsize=64)
def _decoded(ptx: str, name: str) -> tuple[Kernel, _machine.Program, ModuleVariables]:
    module, variables = _loaded(ptx)
    kernel = module.kernels[name]
    return kernel, decode(module, kernel, variables.addresses), variables


@dataclass(frozen=True)
class Run:
    """One launch, executed."""

    launch: Launch
    counters: Counters
    findings: tuple[Finding, ...]


class Machine:
    """Executes launches for `device(..., execute=Machine(...))`, and remembers what they did.

    `seed`: chooses the order of everything that may happen in several; a kernel that is right is
    right for every seed. `collect`: findings are only remembered; without it the first launch with
    one raises Fault when it has ended.
    """

    def __init__(self, seed: int = 0, collect: bool = False) -> None:
        self.seed = seed
        self.collect = collect
        self.runs: list[Run] = []

    @property
    def findings(self) -> list[Finding]:
        return [finding for run in self.runs for finding in run.findings]

    def __call__(self, launch: Launch, memory: MemoryMap) -> None:
        """Fault if the kernel does what it must not; tensors are then as far as it had come."""
        run = _run(launch, memory, self.seed)
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


def _run(launch: Launch, memory: MemoryMap, seed: int) -> Run:
    kernel, program, variables = _decoded(launch.ptx, launch.kernel)
    size = max((p.offset + p.size for p in kernel.parameters), default=0)
    block = ctypes.create_string_buffer(size + 2 * _ALIGNMENT)
    begin = -(-ctypes.addressof(block) // _ALIGNMENT) * _ALIGNMENT
    for parameter, value in zip(kernel.parameters, launch.parameters, strict=True):
        ctypes.memmove(begin + parameter.offset, value, parameter.size)
    allocations = [(str(found), found.begin, found.size) for found in memory]
    allocations += variables.allocations
    allocations.append(("the kernel's parameters", begin, size))
    result = _machine.launch(
        program=program,
        grid=launch.grid,
        block=launch.block,
        cluster=launch.cluster,
        dynamic_shared_bytes=launch.shared_bytes,
        parameters=begin,
        allocations=allocations,
        seed=seed,
        resident=launch.resident_blocks or 0,
    )
    findings = tuple(Finding(*finding) for finding in result.pop("findings"))
    return Run(launch, Counters(**result), findings)
