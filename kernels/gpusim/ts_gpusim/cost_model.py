# SPDX-License-Identifier: MIT
"""What instructions and copies cost in the model that draws timelines. It is no claim about time.

The model has a clock of cycles for each warp. A warp issues one instruction a cycle, if its
scheduler (four in an SM) and the instruction's pipe are free; results of arithmetic are ready at
once, loaded registers after the memory's latency. Copies and MMAs go on by themselves on engines of
their SM, one after another: an engine is busy for `amount / rate`, and the operation is complete
`latency` later. Whoever waits (barrier, mbarrier, wait_group, tcgen05.wait) goes on at the time of
the last of those it waited for. Left out: caches and DRAM (all data is in L2), bank conflicts,
coalescing, dependent arithmetic, several CTAs in an SM, contention between SMs, clock rates.

Sources, rounded:
  [guide]    CUDA C++ Programming Guide, "Arithmetic Instructions", compute capability 9.0
  [hopper]   Luo et al., "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture via
             Microbenchmarking", arXiv:2402.13499 (latencies)
  [product]  NVIDIA's H100 SXM and B200 figures: dense bf16 FLOP/s over SMs and boost clock
  [chosen]   no source: a round number of the right order
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ts_gpusim.ptx.syntax import Instruction


class Work(enum.IntEnum):
    """What an instruction occupies, as in machine/program.h."""

    NONE = 0  # a step that the decoder adds
    CONTROL = 1
    INTEGER = 2
    FLOAT = 3
    DOUBLE = 4
    SPECIAL = 5  # ex2, rcp, ...
    CONVERSION = 6
    SHUFFLE = 7
    LOAD = 8
    STORE = 9
    ATOMIC = 10
    TENSOR_MEMORY = 11
    COPY = 12
    MMA = 13
    SYNCHRONISE = 14


@dataclass(frozen=True)
class CostModel:
    """Cycles, and amounts for each cycle of one SM."""

    pipe_cycles: dict[Work, int]  # that an instruction of a warp keeps a scheduler's pipe busy
    shared_latency: int
    shared_bytes: int
    distributed_latency: int  # to another SM's shared memory
    distributed_bytes: int
    global_latency: int
    global_bytes: int
    tensor_memory_latency: int
    tensor_memory_bytes: int
    copy_latency: int
    copy_bytes: int
    mma_latency: int
    mma_results: int  # elements of D, each with 32 bytes of K (16 bf16, 32 fp8): twice that FLOP


# [guide]: in a cycle an SM does 128 f32, 64 integers, f64 or conversions, 16 special functions, 32
# shuffles; a scheduler has a quarter of them.
_PIPE_CYCLES = {
    Work.NONE: 0,
    Work.CONTROL: 1,
    Work.INTEGER: 2,
    Work.FLOAT: 1,
    Work.DOUBLE: 2,
    Work.SPECIAL: 8,
    Work.CONVERSION: 2,
    Work.SHUFFLE: 4,
    Work.LOAD: 1,
    Work.STORE: 1,
    Work.ATOMIC: 1,
    Work.TENSOR_MEMORY: 1,
    Work.COPY: 1,
    Work.MMA: 1,
    Work.SYNCHRONISE: 1,
}

HOPPER = CostModel(
    pipe_cycles=_PIPE_CYCLES,
    shared_latency=30,  # [hopper]
    shared_bytes=128,  # 32 banks of 4 bytes
    distributed_latency=180,  # [hopper]
    distributed_bytes=32,  # [chosen]
    global_latency=260,  # [hopper], a hit in L2
    global_bytes=64,  # [chosen]
    tensor_memory_latency=0,  # it has none
    tensor_memory_bytes=1,
    copy_latency=600,  # [chosen]
    copy_bytes=64,  # [chosen], as global_bytes
    mma_latency=32,  # [chosen]
    mma_results=128,  # [product]: 4096 FLOP of bf16
)

BLACKWELL = CostModel(
    pipe_cycles=_PIPE_CYCLES,
    shared_latency=30,
    shared_bytes=128,
    distributed_latency=180,
    distributed_bytes=32,
    global_latency=260,
    global_bytes=64,
    tensor_memory_latency=20,  # [chosen]
    tensor_memory_bytes=512,  # 128 lanes of 4 bytes
    copy_latency=600,
    copy_bytes=64,
    mma_latency=64,  # [chosen]
    mma_results=256,  # [product]: 8192 FLOP of bf16
)


def cost_model(target: str) -> CostModel:
    """`target`: of the PTX, such as sm_90a."""
    digits = "".join(c for c in target if c.isdigit())
    return HOPPER if int(digits) < 100 else BLACKWELL


_BY_OPCODE = {
    Work.CONTROL: "bra brx exit ret trap nop activemask elect setmaxnreg griddepcontrol nanosleep "
    "pmevent prefetch prefetchu createpolicy discard applypriority",
    Work.SPECIAL: "ex2 lg2 rcp rsqrt sqrt sin cos tanh div rem",
    Work.CONVERSION: "cvt cvta",
    Work.SHUFFLE: "shfl redux match vote",
    Work.LOAD: "ld ldu ldmatrix",
    Work.STORE: "st stmatrix",
    Work.ATOMIC: "atom red",
    Work.COPY: "cp",
    Work.MMA: "wgmma mma",
    Work.SYNCHRONISE: "bar barrier mbarrier fence membar",
}
_WORK = {opcode: work for work, opcodes in _BY_OPCODE.items() for opcode in opcodes.split()}
_SYNCHRONISES = frozenset({"fence", "commit_group", "wait_group", "wait_all", "mbarrier"})
_FLOATS = frozenset({"f32", "f16", "f16x2", "bf16", "bf16x2", "f32x2"})


def work_of(instruction: Instruction) -> Work:
    opcode, modifiers = instruction.opcode, instruction.modifiers
    if opcode == "tcgen05":
        if modifiers[0] in ("ld", "st"):
            return Work.TENSOR_MEMORY
        return Work.MMA if modifiers[0] in ("mma", "cp", "commit") else Work.SYNCHRONISE
    if opcode in ("cp", "wgmma") and not _SYNCHRONISES.isdisjoint(modifiers):
        return Work.SYNCHRONISE
    if opcode in _WORK:
        return _WORK[opcode]
    if "f64" in modifiers:
        return Work.DOUBLE
    return Work.INTEGER if _FLOATS.isdisjoint(modifiers) else Work.FLOAT
