# SPDX-License-Identifier: MIT
"""What the torch backend chose, beside what it passed over: the numbers behind its docstrings.

    python benchmarks/bench_torch_backend.py [--threads 2] [--only moe]

Both sides run alternately; each line shows the best time of either and their ratio. With one thread
it is the thread's CPU time, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from ts_kernels import OP_NAMES, SamplingRows, bind
from ts_kernels.sampling_rows import Draw, Truncation
from ts_kernels.torch import attention, moe
from ts_kernels.torch.norm import silu_and_mul

DTYPES = (torch.float32, torch.bfloat16)
HEADS, NOPE, ROPE, VALUE, RANK, PAGE = 8, 128, 64, 128, 512, 16


@dataclass(frozen=True)
class Comparison:
    name: str
    ours: Callable[[], Any]
    peer_name: str
    peer: Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="run the comparisons whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, microseconds")
    print(f"{'':48} {'ours':>9} {'peer':>9}  peer / ours")
    for comparison in comparisons():
        if arguments.only in comparison.name:
            show(comparison)


def show(comparison: Comparison, seconds: float = 0.4) -> None:
    """Prints the best of alternating runs."""
    best = [float("inf"), float("inf")]
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    comparison.ours(), comparison.peer()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or float("inf") in best:
        for side, run in enumerate((comparison.ours, comparison.peer)):
            start = clock()
            run()
            best[side] = min(best[side], (clock() - start) * 1e6)
    ours, peer = best
    print(
        f"{comparison.name:48} {ours:9.0f} {peer:9.0f}  {peer / ours:5.2f}  {comparison.peer_name}"
    )


def comparisons() -> Iterator[Comparison]:
    for tokens in (8, 32, 512):
        yield linear(tokens)
    for dtype in DTYPES:
        for queries, context in ((64, 64), (512, 512), (2048, 2048)):
            yield prefill_beside_sdpa(dtype, queries, context)
        for tokens in (1, 8, 32, 512):
            yield from experts(dtype, tokens)
    for rows, vocab in ((32, 2048), (32, 32_000), (8, 163_840)):
        yield from sampling(rows, vocab)


def linear(tokens: int) -> Comparison:
    x, weight = torch.randn(tokens, 1024), torch.randn(2048, 1024)
    ops = bind("cpu", torch.float32, {"linear": "torch"})
    name = f"linear fp32 [{tokens}, 1024] x [2048, 1024]"
    return Comparison(name, lambda: ops.linear(x, weight), "F.linear", lambda: F.linear(x, weight))


def prefill_arguments(dtype: torch.dtype, queries: int, context: int) -> tuple[Any, ...]:
    pages = -(-context // PAGE)
    kv = torch.randn(pages, PAGE, RANK + ROPE).to(dtype)
    q = torch.randn(queries, HEADS, NOPE + ROPE).to(dtype)
    block_table = torch.randperm(pages).int().view(1, pages)
    w_kv_b = (torch.randn(HEADS, NOPE + VALUE, RANK) * RANK**-0.5).to(dtype)
    start, lengths = torch.tensor([0, queries]).int(), torch.tensor([context]).int()
    slots = torch.zeros(1, dtype=torch.int32)
    return q, kv, block_table, slots, start, lengths, w_kv_b, (NOPE + ROPE) ** -0.5


def prefill_beside_sdpa(dtype: torch.dtype, queries: int, context: int) -> Comparison:
    arguments = prefill_arguments(dtype, queries, context)
    q, kv, block_table, _, _, _, w_kv_b, scale = arguments

    def sdpa() -> Tensor:
        entries = kv[block_table[0].long()].view(-1, RANK + ROPE)[:context]
        expanded = F.linear(entries[:, :RANK], w_kv_b.flatten(0, 1))
        expanded = expanded.view(context, HEADS, NOPE + VALUE).transpose(0, 1)
        rope_key = entries[:, RANK:].expand(HEADS, -1, -1)
        keys = torch.cat([expanded[..., :NOPE], rope_key], dim=-1)
        values = F.pad(expanded[..., NOPE:], (0, NOPE + ROPE - VALUE))
        return F.scaled_dot_product_attention(
            q.transpose(0, 1)[None], keys[None], values[None], is_causal=True, scale=scale
        )

    name = f"prefill {dtype} {queries} of {context}"
    return Comparison(
        name, lambda: attention.mla_prefill(*arguments), "scaled_dot_product_attention", sdpa
    )


def experts(dtype: torch.dtype, tokens: int) -> Iterator[Comparison]:
    width, intermediate, stack, top_k = 512, 256, 16, 2
    x = torch.randn(tokens, width).to(dtype)
    gate_up = (torch.randn(stack, 2 * intermediate, width) * width**-0.5).to(dtype)
    down = (torch.randn(stack, width, intermediate) * intermediate**-0.5).to(dtype)
    weights, ids = torch.rand(tokens, stack).topk(top_k)

    def sorted_pairs() -> tuple[Tensor, Tensor, Tensor]:
        flat = ids.flatten()
        order = flat.argsort(stable=True)
        return flat, order, flat.bincount(minlength=stack)

    def weighted(hidden: Tensor, order: Tensor) -> Tensor:
        by_pair = torch.empty_like(hidden)
        by_pair[order] = hidden
        return torch.bmm(weights.to(dtype)[:, None], by_pair.view(tokens, top_k, width))[:, 0]

    def grouped() -> Tensor:
        _, order, count = sorted_pairs()
        ends = count.cumsum(0).int()
        hidden = torch._grouped_mm(x[order // top_k], gate_up.transpose(1, 2), offs=ends)
        hidden = torch._grouped_mm(silu_and_mul(hidden), down.transpose(1, 2), offs=ends)
        return weighted(hidden, order)

    def padded() -> Tensor:
        flat, order, count = sorted_pairs()
        expert = flat[order]
        column = torch.arange(len(order)) - (count.cumsum(0) - count)[expert]
        buffer = x.new_zeros(stack, int(count.max()), width)
        buffer[expert, column] = x[order // top_k]
        hidden = torch.bmm(buffer, gate_up.transpose(1, 2))
        hidden = silu_and_mul(hidden.flatten(0, 1)).view(stack, -1, intermediate)
        return weighted(torch.bmm(hidden, down.transpose(1, 2))[expert, column], order)

    for peer in (grouped, padded):
        yield Comparison(
            f"experts {dtype} {tokens} tokens, 2 of 16",
            lambda: moe.moe_experts(x, gate_up, down, weights, ids),
            peer.__name__,
            peer,
        )


def sampling(rows: int, vocab: int) -> Iterator[Comparison]:
    logits = torch.randn(rows, vocab) * 3
    sample = bind("cpu", torch.float32, dict.fromkeys(OP_NAMES, "torch")).sample
    greedy = SamplingRows()
    yield Comparison(
        f"greedy [{rows}, {vocab}]",
        lambda: sample(logits, greedy),
        "torch.argmax",
        lambda: logits.argmax(dim=-1),
    )
    every, ones = torch.arange(rows), torch.ones(rows)
    truncation = Truncation(torch.zeros(rows).long(), ones * 0.9, ones * 0, False, True)
    nucleus = SamplingRows(draws=(Draw(every, ones, ones.double() / 2, truncation),))

    def by_torch_sort() -> Tensor:
        ordered, ids = torch.softmax(logits, dim=-1).sort(dim=-1, descending=True)
        cumulative = ordered.cumsum(dim=-1)
        ordered = ordered.masked_fill(cumulative - ordered > 0.9, 0)
        return ids.gather(1, torch.multinomial(ordered, 1))

    yield Comparison(
        f"top-p 0.9 [{rows}, {vocab}]",
        lambda: sample(logits, nucleus),
        "torch.sort and multinomial",
        by_torch_sort,
    )


if __name__ == "__main__":
    main()
