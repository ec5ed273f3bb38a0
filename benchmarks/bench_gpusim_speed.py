# SPDX-License-Identifier: MIT
"""Warp instructions per second of the software GPU, on one core, with all its sanitizers on.

tokenspeed-mla's decode kernel, bf16 and fp8, with the reduction of its partial results (4 requests
of 1,024 tokens, 128 heads, a B200's 148 SMs), and our Hopper GEMM. Each launch is captured once and
executed again and again on one core; what counts is the median of the core's time (CPU time, which
others on the machine disturb least). Compiling by the DSL and decoding by us are shown apart.

    python benchmarks/bench_gpusim_speed.py [--runs 5] [--only fp8] [--save]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import ts_gpusim
from results import save
from tokenspeed_mla.mla_decode import tokenspeed_mla_decode
from tokenspeed_mla.utils import get_num_sm
from ts_gpusim.launch import Launch
from ts_gpusim.memory import MemoryMap

LATENT, ROPE, PAGE, HEADS = 512, 64, 64, 128
BATCH, KEYS = 4, 1024
SMS = 148
GEMM = (256, 256, 1024)  # m, n, k


@dataclass(frozen=True)
class Measured:
    instructions: int  # of warps
    seconds: float  # in the machine: the median
    decode_seconds: float  # of the PTX to the machine's instructions, once for a kernel

    @property
    def million_per_second(self) -> float:
        return self.instructions / self.seconds / 1e6


def captured(arch: str, call: Callable[[], object]) -> tuple[list[tuple[Launch, MemoryMap]], float]:
    """The launches of `call`, not executed; seconds that this took, most in the DSL's compiler."""
    launches: list[tuple[Launch, MemoryMap]] = []
    start = time.perf_counter()
    with ts_gpusim.device(arch, sms=SMS, execute=lambda *launch: launches.append(launch)):
        get_num_sm.cache_clear()
        call()
    return launches, time.perf_counter() - start


def decode(dtype: torch.dtype) -> Callable[[], object]:
    torch.manual_seed(0)
    pages = KEYS // PAGE
    query = torch.randn(BATCH, 1, HEADS, LATENT + ROPE).to(dtype)
    cache = torch.randn(BATCH * pages, PAGE, LATENT + ROPE).to(dtype)
    table = torch.randperm(BATCH * pages).view(BATCH, pages).int()
    lengths = torch.full((BATCH,), KEYS, dtype=torch.int32)
    workspace = torch.zeros(1 << 25, dtype=torch.int8)
    scale = (LATENT + ROPE) ** -0.5
    return lambda: tokenspeed_mla_decode(
        query, cache, workspace, LATENT, ROPE, table, lengths, KEYS, scale
    )


def hopper_gemm() -> Callable[[], object]:
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "gpusim"))
    import gpusim_hopper_gemm

    torch.manual_seed(0)
    m, n, k = GEMM
    a, b, c = torch.randn(m, k).bfloat16(), torch.randn(n, k).bfloat16(), torch.zeros(m, n)
    return lambda: gpusim_hopper_gemm.compiled(b_mn_major=False)(a, b, c)


def measure(launch: Launch, memory: MemoryMap, runs: int) -> Measured:
    machine = ts_gpusim.Machine(collect=True)  # decode has races, which the README names
    start = time.thread_time()
    machine(launch, memory)
    first = time.thread_time() - start
    seconds = []
    for _ in range(runs):
        start = time.thread_time()
        machine(launch, memory)
        seconds.append(time.thread_time() - start)
    median = statistics.median(seconds)
    return Measured(machine.runs[0].counters.instructions, median, max(first - median, 0.0))


def peak_mb() -> int:
    """Of this process, until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="measure the kernels whose name contains this")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    calls = {
        "decode bf16": ("sm_100a", lambda: decode(torch.bfloat16)),
        "decode fp8": ("sm_100a", lambda: decode(torch.float8_e4m3fn)),
        "Hopper GEMM": ("sm_90a", hopper_gemm),
    }
    numbers: dict[str, dict[str, float]] = {}
    print(f"{'':24} {'instructions':>12} {'s':>8} {'M/s':>6} {'decoding s':>11} {'peak MB':>8}")
    for name, (arch, make) in calls.items():
        if arguments.only not in name:
            continue
        launches, compile_seconds = captured(arch, make())
        before = peak_mb()
        for launch, kernel in zip(launches, (name, f"{name} reduction"), strict=False):
            found = measure(*launch, arguments.runs)
            numbers[kernel] = {
                "instructions": found.instructions,
                "seconds": round(found.seconds, 4),
                "million_per_second": round(found.million_per_second, 3),
                "decode_seconds": round(found.decode_seconds, 3),
                "peak_mb": peak_mb(),
                "peak_mb_before": before,
            }
            print(
                f"{kernel:24} {found.instructions:>12,} {found.seconds:>8.3f}"
                f" {found.million_per_second:>6.2f} {found.decode_seconds:>11.2f} {peak_mb():>8}"
            )
        print(f"{'':24} captured in {compile_seconds:.1f} s, {before} MB before the machine runs")
    if arguments.save:
        save("gpusim_speed", numbers)


if __name__ == "__main__":
    main()
