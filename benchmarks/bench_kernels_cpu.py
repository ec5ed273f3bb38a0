# SPDX-License-Identifier: MIT
"""CPU kernels: backend `native` against backend `torch`, op by op, alternating in one run.

    python benchmarks/bench_kernels_cpu.py [--threads 2] [--geometry bench] [--op mla_decode]

Two geometries: the 51.5 M-parameter model of `bench_engine_cpu.py`, and a slice of one layer with
widths nearer to Kimi K2's. Weights and caches rotate through more copies than the last-level cache
holds, as a model's layers do. Times are the best of the run, in microseconds: on a busy machine a
median measures the neighbours. With `--threads 1` they are CPU time, which a neighbour lengthens
only through caches and memory. GB/s counts the bytes that an op must read once.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from memory_limit import read_bandwidth
from results import save
from rich.console import Console
from rich.table import Table
from torch import Tensor
from ts_kernels import Ops, bind

ROTATE = 160 << 20  # bytes of copies to rotate through
PAGE = 16


@dataclass(frozen=True)
class Geometry:
    hidden: int
    heads: int
    q_rank: int
    experts: int
    top_k: int
    inner: int
    shared: int
    vocab: int
    nope: int = 128
    value: int = 128
    rank: int = 512
    rope: int = 64


GEOMETRIES = {
    "bench": Geometry(512, 8, 256, 16, 2, 256, 1, 2048),
    "k2-slice": Geometry(2048, 16, 1536, 8, 2, 1024, 1, 4096),
}
DECODE_BATCHES = (1, 8, 32)
CONTEXT = 160
LONG = 16384
PREFILL = 512


@dataclass(frozen=True)
class Case:
    """`run(ops, i)` runs the op on the i-th copy of its arguments."""

    op: str
    what: str
    run: Callable[[Ops, int], object]
    copies: int
    must_read: int  # bytes


def copies_of(make: Callable[[], Tensor]) -> list[Tensor]:
    """Enough of them that each has left the last-level cache when its turn comes again."""
    tensors = [make()]
    while sum(t.nbytes for t in tensors) < ROTATE and len(tensors) < 64:
        tensors.append(make())
    return tensors


def linear_cases(g: Geometry, dtype: torch.dtype, tokens: int) -> Iterator[Case]:
    layers = {
        "down": (g.q_rank + g.rank + g.rope, g.hidden),
        "q": (g.heads * (g.nope + g.rope), g.q_rank),
        "o": (g.hidden, g.heads * g.value),
        "head": (g.vocab, g.hidden),
    }
    for name, (n, k) in layers.items():
        weights = copies_of(lambda n=n, k=k: torch.randn(n, k).to(dtype))  # type: ignore[misc]
        x = torch.randn(tokens, k).to(dtype)
        yield Case(
            "linear",
            f"{name} {n}x{k}",
            lambda ops, i, x=x, w=weights: ops.linear(x, w[i]),
            len(weights),
            weights[0].nbytes,
        )


def head_linear_cases(g: Geometry, dtype: torch.dtype, tokens: int) -> Iterator[Case]:
    weights = copies_of(lambda: torch.randn(g.heads, g.nope + g.value, g.rank).to(dtype))
    q = torch.randn(tokens, g.heads, g.nope).to(dtype)
    latent = torch.randn(tokens, g.heads, g.rank).to(dtype)
    half = weights[0].nbytes // 2
    yield Case(
        "head_linear",
        "absorb",
        lambda ops, i: ops.head_linear(q, weights[i][:, : g.nope].transpose(1, 2)),
        len(weights),
        half,
    )
    yield Case(
        "head_linear",
        "values",
        lambda ops, i: ops.head_linear(latent, weights[i][:, g.nope :]),
        len(weights),
        half,
    )


def small_cases(g: Geometry, dtype: torch.dtype, tokens: int) -> Iterator[Case]:
    x, y = torch.randn(2, tokens, g.hidden).to(dtype)
    weight = torch.ones(g.hidden, dtype=dtype)
    yield Case("rms_norm", "", lambda ops, i: ops.rms_norm(x, weight, 1e-6), 1, x.nbytes)
    yield Case(
        "add_rms_norm", "", lambda ops, i: ops.add_rms_norm(x, y, weight, 1e-6), 1, 2 * x.nbytes
    )
    gate_up = torch.randn(tokens, 2 * g.inner).to(dtype)
    yield Case("silu_and_mul", "", lambda ops, i: ops.silu_and_mul(gate_up), 1, gate_up.nbytes)
    q = torch.randn(tokens, g.heads, g.nope + g.rope).to(dtype)[:, :, g.nope :]
    positions = torch.arange(tokens)
    cos_sin = torch.randn(max(tokens, 64), g.rope)
    yield Case(
        "rope_interleaved",
        "q",
        lambda ops, i: ops.rope_interleaved(q, positions, cos_sin),
        1,
        tokens * g.heads * g.rope * dtype.itemsize,
    )
    kv = torch.zeros(tokens // PAGE + 1, PAGE, g.rank + g.rope, dtype=dtype)
    latent = torch.randn(tokens, g.rank).to(dtype)
    key = torch.randn(tokens, g.rope).to(dtype)
    norm_weight = torch.ones(g.rank, dtype=dtype)
    yield Case(
        "mla_cache_write",
        "",
        lambda ops, i: ops.mla_cache_write(
            kv, latent, key, norm_weight, cos_sin, positions, positions, 1e-6
        ),
        1,
        latent.nbytes + key.nbytes,
    )


def moe_cases(g: Geometry, dtype: torch.dtype, tokens: int) -> Iterator[Case]:
    logits = torch.randn(tokens, g.experts)
    bias = torch.zeros(g.experts)

    def route(ops: Ops) -> tuple[Tensor, Tensor]:
        return ops.moe_route(logits, bias, g.top_k, 2, 1, True, 2.5)

    yield Case("moe_route", "", lambda ops, i: route(ops), 1, logits.nbytes)
    stack = g.experts + g.shared
    gate_up = copies_of(lambda: torch.randn(stack, 2 * g.inner, g.hidden).to(dtype))
    down = [torch.randn(stack, g.hidden, g.inner).to(dtype) for _ in gate_up]
    x = torch.randn(tokens, g.hidden).to(dtype)
    weights, ids = route(bind("cpu", dtype))
    touched = len(ids.unique()) + g.shared
    yield Case(
        "moe_experts",
        f"{touched} of {stack}",
        lambda ops, i: ops.moe_experts(x, gate_up[i], down[i], weights, ids, g.shared),
        len(gate_up),
        touched * 3 * g.inner * g.hidden * dtype.itemsize,
    )


def attention_cases(g: Geometry, dtype: torch.dtype, rows: int) -> Iterator[Case]:
    width = g.rank + g.rope
    slots = torch.arange(rows, dtype=torch.int32)
    for context in (CONTEXT, LONG) if rows == 1 else (CONTEXT,):
        columns = -(-context // PAGE)
        pools = copies_of(lambda c=columns: torch.randn(rows * c, PAGE, width).to(dtype))  # type: ignore[misc]
        table = torch.randperm(rows * columns, dtype=torch.int32).view(rows, columns)
        lens = torch.full((rows,), context, dtype=torch.int32)
        q = torch.randn(rows, 1, g.heads, width).to(dtype)
        yield Case(
            "mla_decode",
            f"context {context}",
            lambda ops, i, q=q, pools=pools, table=table, lens=lens: ops.mla_decode(
                q, pools[i], table, slots, lens, 0.07, g.rank
            ),
            len(pools),
            rows * context * width * dtype.itemsize,
        )


def prefill_cases(g: Geometry, dtype: torch.dtype) -> Iterator[Case]:
    slots = torch.zeros(1, dtype=torch.int32)
    for tokens, context in ((PREFILL, PREFILL), (PREFILL, 4 * PREFILL)):
        kv = torch.randn(context // PAGE, PAGE, g.rank + g.rope).to(dtype)
        table = torch.randperm(context // PAGE, dtype=torch.int32).view(1, -1)
        start = torch.tensor([0, tokens], dtype=torch.int32)
        lens = torch.tensor([context], dtype=torch.int32)
        q = torch.randn(tokens, g.heads, g.nope + g.rope).to(dtype)
        w = torch.randn(g.heads, g.nope + g.value, g.rank).to(dtype) * 0.05
        yield Case(
            "mla_prefill",
            f"context {context}",
            lambda ops, i, q=q, kv=kv, table=table, start=start, lens=lens, w=w: ops.mla_prefill(
                q, kv, table, slots, start, lens, w, 0.07
            ),
            1,
            kv.nbytes + w.nbytes + q.nbytes,
        )


def cases(g: Geometry, dtype: torch.dtype) -> Iterator[tuple[int, Case]]:
    for tokens in DECODE_BATCHES:
        for make in (
            linear_cases,
            head_linear_cases,
            small_cases,
            moe_cases,
            attention_cases,
        ):
            for case in make(g, dtype, tokens):
                yield tokens, case
    for make in (linear_cases, small_cases, moe_cases):
        for case in make(g, dtype, PREFILL):
            yield PREFILL, case
    for case in prefill_cases(g, dtype):
        yield PREFILL, case


Clock = Callable[[], float]


def best_of(
    case: Case, contenders: dict[str, Ops], seconds: float, clock: Clock
) -> dict[str, float]:
    """Best time of one call in microseconds, the contenders taking turns."""
    best = dict.fromkeys(contenders, float("inf"))
    turn = itertools.count()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or next(turn) < 3:
        for name, ops in contenders.items():
            for i in range(min(case.copies, 8)):
                copy = (next(turn) * 7 + i) % case.copies
                started = clock()
                case.run(ops, copy)
                best[name] = min(best[name], (clock() - started) * 1e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--geometry", choices=[*GEOMETRIES], action="append")
    parser.add_argument("--op", action="append", help="only these ops")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], action="append")
    parser.add_argument("--seconds", type=float, default=0.25, help="for each case")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results")
    arguments = parser.parse_args()

    from ts_kernels import _native

    clock = time.thread_time if arguments.threads == 1 else time.perf_counter
    bandwidth = read_bandwidth(mib=256)
    torch.set_num_threads(arguments.threads)
    _native.set_num_threads(arguments.threads)
    console = Console()
    console.print(
        f"{_native.isa()}, {arguments.threads} threads, memory {bandwidth / 1e9:.1f} GB/s"
    )
    rows = []
    for name in arguments.geometry or GEOMETRIES:
        for dtype_name in arguments.dtype or ("bfloat16", "float32"):
            dtype = getattr(torch, dtype_name)
            contenders = {
                backend: bind("cpu", dtype, dict.fromkeys(_ops_of(backend), backend))
                for backend in ("torch", "native")
            }
            table = Table(title=f"{name}, {dtype_name}")
            for column in ("op", "case", "tokens", "torch µs", "native µs", "ratio", "GB/s"):
                table.add_column(column, justify="left" if column in ("op", "case") else "right")
            for tokens, case in cases(GEOMETRIES[name], dtype):
                if arguments.op and case.op not in arguments.op:
                    continue
                us = best_of(case, contenders, arguments.seconds, clock)
                rate = case.must_read / us["native"] / 1e3
                rows.append(
                    {
                        "geometry": name,
                        "dtype": dtype_name,
                        "op": case.op,
                        "case": case.what,
                        "tokens": tokens,
                        "torch_us": round(us["torch"], 1),
                        "native_us": round(us["native"], 1),
                        "gb_per_s": round(rate, 2),
                    }
                )
                table.add_row(
                    case.op,
                    case.what,
                    str(tokens),
                    f"{us['torch']:.1f}",
                    f"{us['native']:.1f}",
                    f"{us['torch'] / us['native']:.1f}",
                    f"{rate:.1f}",
                )
            console.print(table)
    if arguments.save:
        numbers = {"threads": arguments.threads, "gb_per_s": bandwidth / 1e9, "cases": rows}
        console.print(f"saved {save('kernels_cpu', numbers)}")


def _ops_of(backend: str) -> list[str]:
    from ts_kernels import OP_NAMES, default_registry

    registry = default_registry()
    return [
        op for op in OP_NAMES if any(i.backend == backend for i in registry.implementations(op))
    ]


if __name__ == "__main__":
    main()
