# SPDX-License-Identifier: MIT
"""What only the native backend promises: instruction sets, the same bits in any company, threads.

That it computes what `reference` computes is in test_kernels_conformance.py.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from ts_kernels import Implementation, default_registry
from ts_kernels.conformance import CASES, Case, check

_native = pytest.importorskip("ts_kernels._native", reason="the extension module is not built")

from ts_kernels import native  # noqa: E402
from ts_kernels.native import attention, dense, moe, norm, rope  # noqa: E402

DTYPES = (torch.float32, torch.bfloat16)
ISAS = _native.isas()
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def implementations() -> dict[str, Implementation]:
    found = (default_registry().implementations(op) for op in {c.op for c in CASES.values()})
    return {i.op: i for each in found for i in each if i.backend == "native"}


NATIVE = implementations()
NATIVE_CASES = [pytest.param(c, id=n) for n, c in CASES.items() if c.op in NATIVE]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.isa()
    _native.select_isa(request.param)
    yield request.param
    _native.select_isa(before)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = _native.num_threads()
    yield
    _native.set_num_threads(before)


def normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def slots(table: Tensor) -> Tensor:
    """Row r reads row r of the table."""
    return torch.arange(len(table), dtype=torch.int32)


def pool(contexts: list[int], page: int, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """A cache of shuffled pages for rows of these lengths: kv, block table, context lengths."""
    columns = max(1, max(-(-c // page) for c in contexts))
    pages = torch.randperm(len(contexts) * columns, generator=torch.Generator().manual_seed(1))
    kv = normal(len(contexts) * columns, page, width, dtype=dtype)
    table = pages.to(torch.int32).view(len(contexts), columns)
    return kv, table, torch.tensor(contexts, dtype=torch.int32)


# --- instruction sets ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", NATIVE_CASES)
@dtypes
def test_every_instruction_set_agrees_with_reference(
    case: Case, isa: str, dtype: torch.dtype
) -> None:
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        sizes = {
            name: int(torch.randint(low, high + 1, (), generator=generator))
            for name, (low, high) in case.ranges.items()
        }
        check(NATIVE[case.op], case, sizes, dtype, seed=seed)


def test_an_instruction_set_that_the_cpu_lacks_is_refused_with_what_it_has() -> None:
    with pytest.raises(ValueError, match=r"cannot run mmx; it can run .*baseline"):
        _native.select_isa("mmx")


@pytest.mark.parametrize("k", [1, 7, 16, 31, 33, 64, 100])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 130])
@dtypes
def test_linear_takes_sizes_that_fill_no_vector(
    k: int, tokens: int, isa: str, dtype: torch.dtype
) -> None:
    x, w = normal(tokens, k, dtype=dtype), normal(5, k, dtype=dtype, seed=1)
    expected = x.float() @ w.float().T
    actual = dense.linear(x, w, out_dtype=torch.float32)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf")])
@dtypes
def test_a_result_that_is_not_finite_stays_so(special: float, isa: str, dtype: torch.dtype) -> None:
    x, w = normal(3, 40, dtype=dtype), normal(6, 40, dtype=dtype).abs() + 0.1
    x[1, 7] = special
    out = dense.linear(x, w)
    assert torch.equal(out.isnan()[1], torch.full((6,), special != special))
    assert not out[1].isfinite().any()
    assert out[0].isfinite().all() and out[2].isfinite().all()


def test_bf16_results_are_rounded_to_nearest_even(isa: str) -> None:
    one = torch.ones(1, 1, dtype=torch.bfloat16)
    values = normal(4096, 1, dtype=torch.float32).to(torch.bfloat16)
    doubled = torch.cat([values, values * 2**-8], dim=1)  # sums that fall between bf16 numbers
    exact = doubled.float().sum(dim=1, keepdim=True)
    assert torch.equal(dense.linear(doubled, one.expand(1, 2).contiguous()), exact.bfloat16())


# --- the same bits in any company -----------------------------------------------------------------


@pytest.mark.parametrize("k", [64, 200, 512])
@dtypes
def test_a_token_s_linear_has_the_same_bits_in_any_batch(
    k: int, isa: str, dtype: torch.dtype
) -> None:
    x, w = normal(300, k, dtype=dtype), normal(70, k, dtype=dtype, seed=1)
    together = dense.linear(x, w, out_dtype=torch.float32)
    for size in (1, 2, 3, 5, 8, 32, 129):
        parts = [dense.linear(part, w, out_dtype=torch.float32) for part in x.split(size)]
        assert torch.equal(torch.cat(parts), together), size


@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "columns"])
@dtypes
def test_a_token_s_head_linear_has_the_same_bits_in_any_batch(
    transposed: bool, isa: str, dtype: torch.dtype
) -> None:
    x = normal(37, 3, 65, dtype=dtype)
    w = (
        normal(3, 65, 72, dtype=dtype).transpose(1, 2)
        if transposed
        else normal(3, 72, 65, dtype=dtype)
    )
    together = dense.head_linear(x, w)
    for size in (1, 3, 4, 7, 9):
        parts = [dense.head_linear(part, w) for part in x.split(size)]
        assert torch.equal(torch.cat(parts), together), size


@dtypes
def test_a_token_s_experts_have_the_same_bits_in_any_batch(isa: str, dtype: torch.dtype) -> None:
    experts, hidden, inner, tokens = 6, 96, 48, 41
    x = normal(tokens, hidden, dtype=dtype)
    gate_up = normal(experts, 2 * inner, hidden, dtype=dtype) * 0.1
    down = normal(experts, hidden, inner, dtype=dtype) * 0.1
    weights, ids = normal(tokens, experts, dtype=torch.float32).abs().topk(2)

    def run(rows: slice) -> Tensor:
        return moe.moe_experts(
            x[rows], gate_up, down, weights[rows].contiguous(), ids[rows].remainder(5), 1
        )

    together = run(slice(None))
    for size in (1, 2, 7):
        parts = [run(slice(t, t + size)) for t in range(0, tokens, size)]
        assert torch.equal(torch.cat(parts), together), size


@dtypes
def test_a_row_s_decode_has_the_same_bits_in_any_batch(isa: str, dtype: torch.dtype) -> None:
    contexts = [1, 5, 300, 64, 4200, 17, 256, 257]
    kv, table, lens = pool(contexts, 16, 96, dtype)
    q = normal(len(contexts), 1, 5, 96, dtype=dtype)
    together = attention.mla_decode(q, kv, table, slots(table), lens, 0.1, 64)
    for row in range(len(contexts)):
        only = slice(row, row + 1)
        alone = attention.mla_decode(q[only], kv, table, slots(table)[only], lens[only], 0.1, 64)
        assert torch.equal(alone, together[only]), contexts[row]


@dtypes
def test_tokens_of_one_sequence_decode_together_as_one_by_one(isa: str, dtype: torch.dtype) -> None:
    context, first = 1500, 1400  # several splits each, and more rows than one group holds
    kv, table, _ = pool([40, context], 16, 96, dtype)
    q = normal(context - first, 1, 5, 96, dtype=dtype)
    lens = torch.arange(first + 1, context + 1, dtype=torch.int32)
    slot = torch.full_like(lens, 1)
    together = attention.mla_decode(q, kv, table, slot, lens, 0.1, 64)
    for i in range(len(q)):
        alone = attention.mla_decode(
            q[i : i + 1], kv, table, slot[i : i + 1], lens[i : i + 1], 0.1, 64
        )
        assert torch.equal(alone, together[i : i + 1]), i


@pytest.mark.parametrize("chunk", [1, 3, 64, 77])
@dtypes
def test_a_prompt_has_the_same_bits_however_it_is_cut(
    chunk: int, isa: str, dtype: torch.dtype
) -> None:
    context, heads, rank, rope, nope, value = 150, 3, 64, 16, 24, 40
    kv, table, _ = pool([context, 31], 16, rank + rope, dtype)
    q = normal(context, heads, nope + rope, dtype=dtype)
    w = normal(heads, nope + value, rank, dtype=dtype) * 0.1

    def run(first: int, last: int) -> Tensor:
        start = torch.tensor([0, last - first], dtype=torch.int32)
        lens = torch.tensor([last], dtype=torch.int32)
        return attention.mla_prefill(
            q[first:last], kv, table, slots(table)[:1], start, lens, w, 0.2
        )

    whole = run(0, context)
    parts = [run(at, min(at + chunk, context)) for at in range(0, context, chunk)]
    assert torch.equal(torch.cat(parts), whole)

    beside = attention.mla_prefill(
        torch.cat([q, q[:20]]),
        kv,
        table,
        slots(table),
        torch.tensor([0, context, context + 20], dtype=torch.int32),
        torch.tensor([context, 31], dtype=torch.int32),
        w,
        0.2,
    )
    assert torch.equal(beside[:context], whole)


# --- threads --------------------------------------------------------------------------------------


@dtypes
def test_the_number_of_threads_changes_no_bit(dtype: torch.dtype) -> None:
    x, w = normal(9, 512, dtype=dtype), normal(600, 512, dtype=dtype, seed=1)
    kv, table, lens = pool([900, 40], 16, 96, dtype)
    q = normal(2, 2, 6, 96, dtype=dtype)
    w_kv_b = normal(6, 48, 64, dtype=dtype)
    start = torch.tensor([0, 30, 37], dtype=torch.int32)
    prompt = normal(37, 6, 56, dtype=dtype)

    def run() -> list[Tensor]:
        return [
            dense.linear(x, w),
            attention.mla_decode(q, kv, table, slots(table), lens, 0.1, 64),
            attention.mla_prefill(prompt, kv, table, slots(table), start, lens, w_kv_b, 0.1),
        ]

    _native.set_num_threads(1)
    expected = run()
    for threads in (2, 3, 7):
        _native.set_num_threads(threads)
        for _ in range(20):
            assert all(map(torch.equal, run(), expected))


def test_a_number_of_threads_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="threads must be in"):
        _native.set_num_threads(0)


def test_several_python_threads_may_call_at_once() -> None:
    _native.set_num_threads(3)
    x, w = normal(4, 256, dtype=torch.float32), normal(512, 256, dtype=torch.float32, seed=1)
    expected = dense.linear(x, w)
    wrong = []

    def work() -> None:
        for _ in range(200):
            if not torch.equal(dense.linear(x, w), expected):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert not wrong


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_computes_too() -> None:
    _native.set_num_threads(2)
    x, w = normal(4, 256, dtype=torch.float32), normal(512, 256, dtype=torch.float32, seed=1)
    expected = dense.linear(x, w)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(dense.linear(x, w), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


# --- shapes of the cache --------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 3, 16, 64, 1000])
@pytest.mark.parametrize("q_tokens", [1, 3])
@dtypes
def test_decode_takes_pages_of_any_size(
    page: int, q_tokens: int, isa: str, dtype: torch.dtype
) -> None:
    contexts = [700, 3, 256, 129]
    kv, table, lens = pool(contexts, page, 80, dtype)
    q = normal(4, q_tokens, 3, 80, dtype=dtype)
    actual = attention.mla_decode(q, kv, table, slots(table), lens, 0.1, 64)
    for row, context in enumerate(contexts):
        entries = kv[table[row].long()].flatten(0, 1)[:context].float()
        scores = torch.einsum("qhd,td->qht", q[row].float(), entries) * 0.1
        last = context - q_tokens + torch.arange(q_tokens)
        scores.masked_fill_(torch.arange(context) > last[:, None, None], -torch.inf)
        expected = scores.softmax(-1) @ entries[:, :64]
        tolerance = 1e-5 if dtype is torch.float32 else 2e-2
        torch.testing.assert_close(actual[row].float(), expected, rtol=tolerance, atol=tolerance)


@dtypes
def test_decode_over_a_long_context_agrees_with_softmax(isa: str, dtype: torch.dtype) -> None:
    context = 9001  # more than the splits' number times their smallest length
    kv, table, lens = pool([context], 16, 96, dtype)
    q = normal(1, 1, 2, 96, dtype=dtype)
    actual = attention.mla_decode(q, kv, table, slots(table), lens, 0.3, 64)
    entries = kv[table[0].long()].flatten(0, 1)[:context].double()
    expected = (q[0, 0].double() @ entries.T * 0.3).softmax(-1) @ entries[:, :64]
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(actual[0, 0].double(), expected, rtol=tolerance, atol=tolerance)


def test_a_row_without_context_gets_zeros() -> None:
    kv, table, _ = pool([16, 16], 16, 96, torch.float32)
    q = normal(2, 1, 2, 96, dtype=torch.float32)
    lens = torch.tensor([0, 7], dtype=torch.int32)
    out = attention.mla_decode(q, kv, table, slots(table), lens, 0.3, 64)
    assert not out[0].any() and out[1].any()


def test_a_row_without_queries_is_skipped() -> None:
    kv, table, _ = pool([32, 32], 16, 80, torch.float32)
    q = normal(5, 2, 40, dtype=torch.float32)
    w = normal(2, 24 + 8, 64, dtype=torch.float32)
    lens = torch.tensor([20, 9], dtype=torch.int32)
    start = torch.tensor([0, 0, 5], dtype=torch.int32)
    both = attention.mla_prefill(q, kv, table, slots(table), start, lens, w, 0.2)
    one = attention.mla_prefill(q, kv, table, slots(table)[1:], start[1:], lens[1:], w, 0.2)
    assert torch.equal(both, one)


def test_no_tokens_at_all_give_empty_results() -> None:
    x = torch.empty(0, 64)
    assert dense.linear(x, torch.ones(8, 64)).shape == (0, 8)
    assert norm.rms_norm(x, torch.ones(64), 1e-6).shape == (0, 64)
    assert norm.silu_and_mul(x).shape == (0, 32)
    ids = torch.empty(0, 2, dtype=torch.int64)
    out = moe.moe_experts(x, torch.ones(3, 8, 64), torch.ones(3, 64, 4), torch.empty(0, 2), ids)
    assert out.shape == (0, 64)
    rotated = rope.rope_interleaved(
        torch.empty(0, 2, 8), torch.empty(0, dtype=torch.int64), torch.ones(4, 8)
    )
    assert rotated.shape == (0, 2, 8)
    table = torch.empty(0, 1, dtype=torch.int32)
    none = torch.empty(0, dtype=torch.int32)
    q = torch.empty(0, 1, 2, 96)
    assert attention.mla_decode(q, torch.ones(1, 16, 96), table, none, none, 1.0, 64).shape == (
        0,
        1,
        2,
        64,
    )


def test_a_processor_without_avx2_is_served_by_another_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ts_kernels import BackendUnavailable, Registry

    monkeypatch.setattr(_native, "isa", lambda: "baseline")
    with pytest.raises(BackendUnavailable, match="no AVX2"):
        native.register(Registry())
