# SPDX-License-Identifier: MIT
"""Random arguments for every op, and how far from `reference` a result may be.

What the project's tests and the author of an out-of-tree backend check an implementation with:

    for case in CASES.values():
        for implementation in default_registry().implementations(case.op):
            check(implementation, case.sizes(smallest=...), dtype=torch.bfloat16, device="cpu")

An error is measured against the largest magnitude of the expected tensor. fp32 results may differ
by the order of a sum; bf16 results also by the rounding of intermediate tensors, which a backend is
free to keep in bf16, while `reference` keeps them in fp32. Sums whose terms cancel would exceed any
such bound, so every output has at least eight columns: they do not all cancel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ts_kernels.registry import Implementation
from ts_kernels.selection import default_registry
from ts_kernels.step_arena import StepArrays, StepInputs, pack_step

TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
"""Largest error, relative to the largest magnitude of the expected tensor."""

Sizes = Mapping[str, int]


class Maker:
    """Draws reproducible tensors of one dtype on one device."""

    def __init__(self, dtype: torch.dtype, device: str, seed: int) -> None:
        self.dtype = dtype
        self.device = device
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        values = torch.randn(shape, generator=self._generator)
        return values.to(self.device, dtype or self.dtype)

    def sliced(self, *shape: int) -> Tensor:
        """Like `normal`, as columns of a wider tensor: the rows are strided."""
        return self.normal(*shape[:-1], shape[-1] + 8)[..., : shape[-1]]

    def integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.randint(high, shape, generator=self._generator).to(self.device, dtype)

    def permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self._generator).to(self.device)


@dataclass(frozen=True)
class Case:
    """One op: the ranges of its sizes worth testing, and its arguments for given sizes.

    A size that is also a trait has the trait's name. `real`: the geometry that serves Kimi K2.
    """

    op: str
    ranges: Mapping[str, tuple[int, int]]
    real: Sizes
    make: Callable[[Maker, Sizes], tuple[Any, ...]]


def check(
    implementation: Implementation,
    case: Case,
    sizes: Sizes,
    dtype: torch.dtype,
    device: str = "cpu",
    seed: int = 0,
) -> None:
    """Runs one implementation beside `reference` on the same arguments.

    AssertionError: a result has another shape, dtype or value. Tensors among the arguments are
    compared afterwards too, so that an op writes what it should and nothing else.
    """
    expected_arguments = case.make(Maker(dtype, device, seed), sizes)
    actual_arguments = case.make(Maker(dtype, device, seed), sizes)
    expected = _tensors(_reference(case.op)(*expected_arguments))
    actual = _tensors(implementation.function(*actual_arguments))
    assert len(actual) == len(expected), f"{len(actual)} results, expected {len(expected)}"
    for result, wanted in zip(actual, expected, strict=True):
        assert_near(result, wanted, TOLERANCE[dtype])
    for after, wanted in zip(_tensors(actual_arguments), _tensors(expected_arguments), strict=True):
        assert torch.equal(after.isnan(), wanted.isnan()), "an argument has another NaN"
        assert_near(after.nan_to_num(), wanted.nan_to_num(), TOLERANCE[dtype])


def assert_near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """AssertionError unless both agree in shape and dtype, and in value within the tolerance."""
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    if not expected.is_floating_point():
        assert torch.equal(actual, expected), f"{actual}, expected {expected}"
    elif expected.numel():
        assert torch.isfinite(actual).all(), "a result is not finite"
        largest = expected.float().abs().max().clamp(min=1e-30)
        error = ((actual.float() - expected.float()).abs().max() / largest).item()
        assert error <= tolerance, f"relative error {error:.2e}, at most {tolerance:.0e}"


def _reference(op: str) -> Callable[..., Any]:
    found = [i for i in default_registry().implementations(op) if i.backend == "reference"]
    return found[0].function


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, StepInputs):
        return [getattr(values, field.name) for field in fields(values)]
    items = values if isinstance(values, tuple) else ()
    return [tensor for item in items for tensor in _tensors(item)]


def _dense_arguments(make: Maker, n: Sizes) -> tuple[Any, ...]:
    return make.sliced(n["tokens"], n["width"]), make.normal(n["out"], n["width"])


def _linear_with_bias(make: Maker, n: Sizes) -> tuple[Any, ...]:
    x, weight = _dense_arguments(make, n)
    return x, weight, make.normal(n["out"]), torch.float32


def _head_linear(make: Maker, n: Sizes) -> tuple[Any, ...]:
    return (
        make.sliced(n["tokens"], n["heads"], n["width"]),
        make.normal(n["heads"], n["out"], n["width"]),
    )


def _head_linear_transposed(make: Maker, n: Sizes) -> tuple[Any, ...]:
    stack = make.normal(n["heads"], n["width"] + 4, n["out"])
    x = make.normal(n["heads"], n["tokens"], n["width"]).transpose(0, 1)
    return x, stack[:, 4:].transpose(1, 2)


def _embedding(make: Maker, n: Sizes) -> tuple[Any, ...]:
    return make.integers(n["out"], n["tokens"]), make.normal(n["out"], n["width"])


def _rms_norm(make: Maker, n: Sizes) -> tuple[Any, ...]:
    return make.sliced(n["tokens"], n["width"]), make.normal(n["width"]), 1e-6


def _add_rms_norm(make: Maker, n: Sizes) -> tuple[Any, ...]:
    x, residual = make.sliced(n["tokens"], n["width"]), make.normal(n["tokens"], n["width"])
    return x, residual, make.normal(n["width"]), 1e-6


def _silu_and_mul(make: Maker, n: Sizes) -> tuple[Any, ...]:
    return (make.sliced(n["tokens"], 2 * n["width"]),)


def _rope(make: Maker, n: Sizes) -> tuple[Any, ...]:
    half = n["half"]
    x = make.sliced(n["tokens"], n["heads"], 2 * half)
    angle = make.normal(64, half, dtype=torch.float32)
    cos_sin = torch.cat([angle.cos(), angle.sin()], dim=1)
    return x, make.integers(64, n["tokens"]), cos_sin


def _kv(make: Maker, n: Sizes, rows: int, longest: int) -> tuple[Tensor, Tensor]:
    """A pool larger than needed, and a block table that scatters every row over it."""
    columns = -(-longest // n["page_size"]) + 2
    pages = rows * columns + 2
    kv = make.normal(pages, n["page_size"], n["kv_lora_rank"] + n["rope_dim"])
    return kv, make.permutation(pages)[: rows * columns].view(rows, columns).int()


def _spoil_behind(block_table: Tensor, slots: Tensor, context_lens: Tensor, kv: Tensor) -> None:
    """What stands behind the last page that any row reads is no page, and what stands behind the
    last entry is no number: a request that went wrong may have left it there."""
    needed = torch.zeros(len(block_table), dtype=torch.int32, device=slots.device)
    needed.scatter_reduce_(0, slots.long(), context_lens, "amax")
    page_size = kv.shape[1]
    column = torch.arange(block_table.shape[1], device=slots.device)
    position = column[:, None] * page_size + torch.arange(page_size, device=slots.device)
    read = torch.zeros(kv.shape[:2], dtype=torch.bool, device=kv.device)
    read[block_table.long()] = position < needed[:, None, None]
    kv[~read] = torch.nan
    block_table[column * page_size >= needed[:, None]] = 2**31 - 1


def _cache_write(make: Maker, n: Sizes) -> tuple[Any, ...]:
    kv, _ = _kv(make, n, n["tokens"], n["page_size"])
    index = make.permutation(kv.shape[0] * n["page_size"])[: n["tokens"]]
    latent = make.sliced(n["tokens"], n["kv_lora_rank"])
    width = 2 * (n["rope_dim"] // 2)  # pairs
    kv = kv[..., : n["kv_lora_rank"] + width].contiguous()
    angle = make.normal(64, width // 2, dtype=torch.float32)
    cos_sin = torch.cat([angle.cos(), angle.sin()], dim=1)
    key, weight = make.sliced(n["tokens"], width), make.normal(n["kv_lora_rank"])
    return kv, latent, key, weight, cos_sin, make.integers(64, n["tokens"]), index, 1e-6


def _decode(make: Maker, n: Sizes) -> tuple[Any, ...]:
    context_lens = make.integers(n["context"], n["rows"], dtype=torch.int32) + n["query_tokens"]
    kv, block_table = _kv(make, n, n["rows"], n["context"] + n["query_tokens"])
    slots = make.integers(n["rows"], n["rows"], dtype=torch.int32)
    _spoil_behind(block_table, slots, context_lens, kv)
    q = make.normal(n["rows"], n["query_tokens"], n["heads"], kv.shape[2])
    return q, kv, block_table, slots, context_lens, kv.shape[2] ** -0.5, n["kv_lora_rank"]


def _prefill(make: Maker, n: Sizes) -> tuple[Any, ...]:
    lengths = make.integers(n["query_tokens"], n["rows"], dtype=torch.int32) + 1
    context_lens = make.integers(n["context"], n["rows"], dtype=torch.int32) + lengths
    kv, block_table = _kv(make, n, n["rows"], n["context"] + n["query_tokens"])
    start = torch.zeros(n["rows"] + 1, dtype=torch.int32, device=make.device)
    start[1:] = lengths.cumsum(0)
    q = make.sliced(int(start[-1]), n["heads"], n["nope"] + n["rope_dim"])
    w_kv_b = make.normal(n["heads"], n["nope"] + n["v"], n["kv_lora_rank"])
    w_kv_b *= n["kv_lora_rank"] ** -0.5
    slots = make.permutation(n["rows"]).int()
    _spoil_behind(block_table, slots, context_lens, kv)
    return q, kv, block_table, slots, start, context_lens, w_kv_b, q.shape[-1] ** -0.5


def _routing(make: Maker, n: Sizes) -> tuple[Any, ...]:
    experts = n["groups"] * n["group_size"]
    logits = make.normal(n["tokens"], experts, dtype=torch.float32)
    kept = max(1, n["groups"] // 2)
    top_k = min(n["top_k"], kept * n["group_size"])
    bias = make.normal(experts, dtype=torch.float32) * 0.1
    return logits, bias, top_k, n["groups"], kept, n["top_k"] % 2 == 0, 2.5


def _experts(make: Maker, n: Sizes) -> tuple[Any, ...]:
    stack = n["experts"] + n["shared"]
    x = make.sliced(n["tokens"], n["width"])
    gate_up = make.normal(stack, 2 * n["intermediate"], n["width"]) * n["width"] ** -0.5
    down = make.normal(stack, n["width"], n["intermediate"]) * n["intermediate"] ** -0.5
    scores = make.normal(n["tokens"], n["experts"], dtype=torch.float32).sigmoid()
    weights, ids = scores.topk(min(n["top_k"], n["experts"]), dim=-1)
    return x, gate_up, down, weights, ids, n["shared"]


def _logprobs(make: Maker, n: Sizes) -> tuple[Any, ...]:
    logits = make.normal(n["rows"], n["vocab"], dtype=torch.float32) * 4
    return logits, make.integers(n["vocab"], n["rows"]), min(n["k"], n["vocab"])


def _step(make: Maker, n: Sizes) -> tuple[Any, ...]:
    """Rows of half of the slots, in an order of their own, some of them admitted by this step."""
    rows, longest, page_size = n["rows"], n["context"], n["page_size"]
    slots = make.permutation(2 * rows).tolist()
    columns = -(-(longest + 1) // page_size)
    tokens = make.integers(100, 2 * rows, longest + 1, dtype=torch.int32)
    pages = make.integers(50, 2 * rows, columns, dtype=torch.int32)
    ends = make.integers(longest, rows).add(1).tolist()
    starts = [end - 1 - int(make.integers(end, 1)) for end in ends]
    admitted = [(slots[i], make.integers(100, ends[i]).tolist()) for i in range(0, rows, 2)]
    patch = [(slot, column, 49 - column % 50) for slot in slots[::3] for column in range(columns)]
    arrays = (
        slots[:rows],
        starts,
        [end - start for start, end in zip(starts, ends, strict=True)],
        make.integers(2, rows).tolist(),
        [slot for slot, _ in admitted],
        [0, *itertools.accumulate(len(history) for _, history in admitted)],
        [token for _, history in admitted for token in history],
        patch,
    )
    arena = torch.zeros(64 + 4 * rows * (longest + columns + 8), dtype=torch.int32)
    packed = StepArrays(*(np.array(array, np.int32) for array in arrays))
    pack_step(arena.numpy(), packed, int(make.integers(rows + 1, 1)))
    inputs = StepInputs.empty(rows * (longest + 1), rows, make.device)
    return arena, tokens, pages, page_size, 50, inputs


def _append(make: Maker, n: Sizes) -> tuple[Any, ...]:
    tokens = make.integers(100, 2 * n["rows"], n["context"], dtype=torch.int32)
    slots = make.permutation(2 * n["rows"])[: n["rows"]]
    return tokens, slots, make.integers(n["context"], n["rows"]), make.integers(9, n["rows"]) - 2


_DENSE = {"tokens": (1, 9), "width": (1, 80), "out": (8, 40)}
_DENSE_REAL = {"tokens": 5, "width": 1024, "out": 768}
_HEADS = {"tokens": (1, 9), "heads": (1, 5), "width": (1, 40), "out": (8, 40)}
_HEADS_REAL = {"tokens": 3, "heads": 16, "width": 128, "out": 512}
_ROWS = {"tokens": (1, 9), "width": (1, 80)}
_ROWS_REAL = {"tokens": 3, "width": 7168}
_PAGED = {"page_size": (1, 16), "kv_lora_rank": (4, 48), "rope_dim": (2, 16)}
_PAGED_REAL = {"page_size": 16, "kv_lora_rank": 512, "rope_dim": 64}
_ATTENTION = {**_PAGED, "rows": (1, 4), "query_tokens": (1, 5), "heads": (1, 4)}
_ATTENTION |= {"context": (1, 70)}
_ATTENTION_REAL = {**_PAGED_REAL, "rows": 3, "query_tokens": 4, "heads": 16, "context": 200}

CASES: Mapping[str, Case] = {
    name: Case(op, ranges, real, make)
    for name, op, ranges, real, make in (
        ("embedding", "embedding", _DENSE, _DENSE_REAL, _embedding),
        ("linear", "linear", _DENSE, _DENSE_REAL, _dense_arguments),
        ("linear_bias_fp32", "linear", _DENSE, _DENSE_REAL, _linear_with_bias),
        ("head_linear", "head_linear", _HEADS, _HEADS_REAL, _head_linear),
        ("head_linear_transposed", "head_linear", _HEADS, _HEADS_REAL, _head_linear_transposed),
        ("rms_norm", "rms_norm", _ROWS, _ROWS_REAL, _rms_norm),
        ("add_rms_norm", "add_rms_norm", _ROWS, _ROWS_REAL, _add_rms_norm),
        ("silu_and_mul", "silu_and_mul", _ROWS, _ROWS_REAL, _silu_and_mul),
        (
            "rope_interleaved",
            "rope_interleaved",
            {"tokens": (1, 9), "heads": (1, 5), "half": (1, 32)},
            {"tokens": 5, "heads": 16, "half": 32},
            _rope,
        ),
        (
            "mla_cache_write",
            "mla_cache_write",
            {**_PAGED, "tokens": (1, 9)},
            {**_PAGED_REAL, "tokens": 33},
            _cache_write,
        ),
        ("mla_decode", "mla_decode", _ATTENTION, _ATTENTION_REAL, _decode),
        (
            "mla_prefill",
            "mla_prefill",
            {**_ATTENTION, "query_tokens": (1, 9), "nope": (4, 32), "v": (8, 32)},
            {**_ATTENTION_REAL, "query_tokens": 12, "nope": 128, "v": 128},
            _prefill,
        ),
        (
            "moe_route",
            "moe_route",
            {"tokens": (1, 9), "groups": (1, 4), "group_size": (2, 9), "top_k": (1, 8)},
            {"tokens": 5, "groups": 8, "group_size": 32, "top_k": 8},
            _routing,
        ),
        (
            "moe_experts",
            "moe_experts",
            {"tokens": (1, 40), "experts": (1, 9), "shared": (0, 2), "top_k": (1, 4)}
            | {"width": (8, 48), "intermediate": (1, 40)},
            {"tokens": 3, "experts": 16, "shared": 1, "top_k": 8}
            | {"width": 256, "intermediate": 512},
            _experts,
        ),
        (
            "token_logprobs",
            "token_logprobs",
            {"rows": (1, 5), "vocab": (1, 50), "k": (0, 9)},
            {"rows": 3, "vocab": 163840, "k": 20},
            _logprobs,
        ),
        (
            "prepare_step",
            "prepare_step",
            {"rows": (1, 6), "context": (1, 40), "page_size": (1, 16)},
            {"rows": 8, "context": 100, "page_size": 16},
            _step,
        ),
        (
            "append_tokens",
            "append_tokens",
            {"rows": (1, 6), "context": (1, 40)},
            {"rows": 64, "context": 1000},
            _append,
        ),
    )
}
"""By name; an op may have several. `sample` is checked against its definition instead."""
