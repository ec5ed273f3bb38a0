# SPDX-License-Identifier: MIT
"""Our MLA decode kernel for Blackwell, executed on the software GPU: attention, and no finding.

How far a result may be from attention in exact arithmetic on the same inputs. Rounding to bf16 (8
significant bits) changes a number by at most u = 2^-8 of it, to e4m3 (4 bits) by p = 2^-4.

- A score sums 576 products, exact in float, in any order: it is off by at most
  d = 577 2^-24 scale sum |q_i k_i|, and the exponential by a few 2^-22 more. Weights and their sum
  are so off by factors e^(+-d) each.
- A weight is rounded before it multiplies, to bf16 (p = u) or e4m3; the sum of weights is not.
  Below 2^-6, e4m3 has steps of 2^-9. The greatest weight is at least 2^4 there (softmax.py), so
  these are off by at most 2^-10 / 2^4 of the sum.
- The result is rounded to bf16 (u).

With A the mean of |v| under the same weights, and B the sum of |v|, |out - o| <= p A + u |o| +
2 d A + 2^-18 A (+ 2^-14 B in e4m3), a little more for products of these. Nothing that the
log-sum-exp is made of is rounded: it is off by d, and by 2^-20 of its size.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import ts_gpusim
from gpusim_mla import BF16, FP8, LATENT, WIDTH, Input, random_input
from hypothesis import HealthCheck, given, settings, strategies
from ts_gpusim.machine import Machine
from ts_kernels.cutedsl import mla_decode
from ts_kernels.cutedsl.mla import workspace_size
from ts_kernels.reference import attention as reference

U = 2.0**-8
SMS = 8


@pytest.fixture
def blackwell() -> Iterator[Machine]:
    machine = Machine()  # which raises what it finds
    with ts_gpusim.device("sm_100a", sms=SMS, execute=machine):
        yield machine


def decode(problem: Input, ctas: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows, tokens, heads, _ = problem.q.shape
    lse = torch.full((rows, tokens, heads), math.nan)
    size = workspace_size(heads, tokens, ctas)
    workspace = torch.full((size,), math.nan)
    out = torch.full((rows, tokens, heads, LATENT), math.nan, dtype=torch.bfloat16)
    mla_decode(
        *problem.arguments,
        kv_scale=problem.kv_scale,
        out=out,
        lse=lse,
        workspace=workspace,
        ctas=ctas,
    )
    return out, lse


def assert_attention(problem: Input, out: torch.Tensor, lse: torch.Tensor) -> None:
    """Within what this file's first lines derive."""
    tokens = problem.q.shape[1]
    p, steps = (2.0**-4, 2.0**-14) if problem.kv.dtype == FP8 else (U, 0.0)
    for row, length in enumerate(problem.context_lens.tolist()):
        keys = problem.keys(row)
        for i in range(tokens):
            visible = keys[: max(0, length - tokens + 1 + i)]
            if len(visible) == 0:
                assert not out[row, i].any() and bool((lse[row, i] == -math.inf).all())
                continue
            query = problem.q[row, i].double()
            scores = query @ visible.T * problem.scale
            weights = scores.softmax(-1)
            values = visible[:, :LATENT]
            expected, size = weights @ values, weights @ values.abs()
            products = (query.abs() @ visible.abs().T * problem.scale).where(weights > 0, 0)
            off = (WIDTH + 1) * 2.0**-24 * products.amax(-1, keepdim=True)
            bound = p * size + U * expected.abs() + (2 * off + 2.0**-18) * size
            bound = 1.01 * (bound + steps * values.abs().sum(0)) + p * U * size
            error = (out[row, i].double() - expected).abs()
            assert bool((error <= bound).all()), f"row {row}, token {i}: {(error / bound).max()}"
            expected_lse = scores.logsumexp(-1)
            lse_error = (lse[row, i].double() - expected_lse).abs()
            lse_bound = off[:, 0] + 2.0**-20 * (1 + expected_lse.abs())
            assert bool((lse_error <= lse_bound).all()), f"row {row}, token {i}: lse"


SHAPES = [
    # heads, query tokens, page size, lengths, CTAs that share the work
    (16, 1, 64, (1,), 1),
    (16, 1, 64, (63,), 1),
    (16, 1, 64, (64,), 2),
    (16, 1, 64, (65,), 2),
    (16, 1, 64, (1000,), 1),
    (16, 1, 64, (1000,), 2),
    (16, 1, 64, (1000,), 5),
    (16, 1, 64, (300, 1, 0, 65, 1000, 64), 5),
    (1, 1, 16, (1,), 1),
    (1, 1, 16, (65,), 2),
    (1, 1, 16, (300,), 5),
    (1, 1, 16, (17, 1000, 0, 0, 31), 5),
    (8, 4, 32, (64,), 1),
    (8, 4, 32, (300,), 2),
    (8, 4, 32, (4, 97, 129), 2),
    (8, 4, 32, (65, 3, 1000), 5),
    (16, 4, 16, (63,), 1),
    (16, 4, 16, (300, 65), 2),
    (16, 4, 16, (7, 0, 1000, 66), 5),
    (64, 2, 128, (65,), 1),
    (64, 2, 128, (300,), 2),
    (64, 2, 128, (64, 129, 1000), 5),
    (128, 1, 64, (64,), 1),
    (128, 1, 64, (300, 1), 2),
    (128, 1, 64, (1000,), 5),
    (12, 3, 128, (1000, 128, 130), 5),
    (12, 3, 128, (63,), 1),
]
QUICK = [shape for shape in SHAPES if shape[0] in (8, 16) and shape[1] in (1, 4)]
SLOW = [pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES if shape not in QUICK]


@pytest.mark.parametrize("shape", [*QUICK, *SLOW], ids=str)
def test_decode_is_attention_whoever_shares_the_work(shape, blackwell):
    *sizes, ctas = shape
    problem = random_input(*sizes)
    out, lse = decode(problem, ctas)
    assert_attention(problem, out, lse)
    if int(problem.context_lens.min()) >= problem.q.shape[1]:
        expected = reference.mla_decode(
            problem.q.float(), problem.kv.float(), *problem.arguments[2:]
        )
        torch.testing.assert_close(out.float(), expected, atol=2e-2, rtol=2e-2)


FP8_SHAPES = [
    (16, 1, 64, (1,), 1),
    (16, 1, 64, (64,), 1),
    (16, 1, 64, (1000,), 5),
    (16, 1, 64, (300, 1, 0, 65, 1000, 64), 5),
    (8, 4, 32, (300,), 2),
    (8, 4, 32, (4, 97, 129), 2),
    (16, 4, 16, (300, 65), 2),
    (64, 2, 128, (64, 129, 1000), 5),
    (128, 1, 64, (300, 1), 2),
]
QUICK_FP8 = FP8_SHAPES[:4]
SLOW_FP8 = [pytest.param(shape, marks=pytest.mark.slow) for shape in FP8_SHAPES[4:]]


@pytest.mark.parametrize("shape", [*QUICK_FP8, *SLOW_FP8], ids=str)
def test_decode_of_fp8_is_attention(shape, blackwell):
    *sizes, ctas = shape
    problem = replace(random_input(*sizes, dtype=FP8), kv_scale=0.75)
    assert_attention(problem, *decode(problem, ctas))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=strategies.lists(strategies.integers(0, 400), min_size=1, max_size=40),
    ctas=strategies.integers(1, 20),
    seed=strategies.integers(0, 1000),
)
def test_any_batch_is_shared_out_among_any_number_of_ctas(lengths, ctas, seed, blackwell):
    blackwell.seed = seed
    problem = random_input(16, 1, 64, tuple(lengths))
    assert_attention(problem, *decode(problem, ctas))


@pytest.mark.parametrize("dtype", [BF16, FP8])
def test_the_seed_changes_no_bit(dtype, blackwell):
    sizes = (16, 4, 16) if dtype == BF16 else (16, 1, 64)
    problem = random_input(*sizes, (300, 65, 200), dtype)
    results = []
    for blackwell.seed in range(6):
        results.append(decode(problem, 3))
    for out, lse in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(lse, results[0][1])


def test_rows_of_length_0_are_zeros_and_nobody_need_have_work(blackwell):
    out, lse = decode(random_input(16, 1, 64, (0, 0, 64)), 8)
    assert not out[:2].any() and bool((lse[:2] == -math.inf).all())
    problem = random_input(16, 1, 64, (64,))
    none = replace(problem, context_lens=torch.zeros(1, dtype=torch.int32))
    out, lse = decode(none, 3)
    assert not out.any() and bool((lse == -math.inf).all())


def test_several_rows_may_read_the_same_pages(blackwell):
    problem = random_input(16, 1, 64, (300, 300))
    problem = replace(problem, slots=problem.slots[:1].repeat(2))
    assert_attention(problem, *decode(problem, 3))


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_overflow_nowhere(size, blackwell):
    problem = random_input(16, 1, 64, (300,))
    q = problem.q.clone()
    q[..., 0] = abs(size) ** 0.5
    kv = problem.kv.clone()
    kv[..., 0] = torch.where(kv[..., 0] > 1, size / abs(size) ** 0.5, kv[..., 0])
    problem = replace(problem, q=q, kv=kv, scale=1.0)
    assert_attention(problem, *decode(problem, 2))


def test_maxima_that_grow_with_every_key_rescale_what_is_there(blackwell):
    problem = random_input(16, 1, 64, (400,))
    pages = problem.block_table[problem.slots[0], :7].long()
    kv = problem.kv.clone()
    kv[pages, :, 0] = torch.arange(7 * 64).view(7, 64).bfloat16() / 8
    q = problem.q.clone()
    q[..., 0] = torch.linspace(-2, 8, 16).bfloat16()  # some heads never, some at every tile
    problem = replace(problem, q=q, kv=kv, scale=1.0)
    for ctas in (1, 3):
        assert_attention(problem, *decode(problem, ctas))


@pytest.mark.parametrize("hidden", [slice(0, 128), slice(64, 200), slice(0, 299)])
def test_scores_of_minus_infinity_have_weight_0(hidden, blackwell):
    problem = random_input(16, 1, 64, (300,))
    pages = problem.block_table[problem.slots[0], :5].long()
    keys = problem.kv[pages].flatten(0, 1)
    keys[hidden, WIDTH - 1] = -1e30
    kv = problem.kv.clone()
    kv[pages] = keys.view(5, 64, WIDTH)
    q = problem.q.clone()
    q[..., WIDTH - 1] = 1e30
    keys[:, WIDTH - 1] = torch.where(keys[:, WIDTH - 1] > -1e29, 0, keys[:, WIDTH - 1])
    kv[pages] = keys.view(5, 64, WIDTH)
    problem = replace(problem, q=q, kv=kv)
    for ctas in (1, 5):
        assert_attention(problem, *decode(problem, ctas))


def test_every_kv_byte_is_read_once_for_each_group_of_query_rows(blackwell):
    lengths = (300, 65, 1000)
    problem = random_input(16, 4, 16, lengths)
    decode(problem, 4)
    entries = sum(-(-length // 16) * 16 for length in lengths)
    pieces = len(lengths) + 4 - 1  # four CTAs cut the line of work three times
    queries = pieces * 64 * WIDTH * 2
    copied = blackwell.runs[0].counters.global_copied_in
    assert entries * WIDTH * 2 < copied <= entries * WIDTH * 2 + queries


def test_the_grid_is_the_device_s_sms_if_nobody_says(blackwell):
    problem = random_input(16, 1, 64, (300, 65))
    assert_attention(problem, mla_decode(*problem.arguments), decode(problem, 8)[1])
    assert blackwell.runs[0].launch.grid[0] == SMS


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"q": torch.zeros(2, 1, 16, 512).bfloat16()}, r"q is \[2, 1, 16, 512\], but must be"),
        ({"q": torch.zeros(2, 1, 129, 576).bfloat16()}, "q has 129 heads, but the kernel takes"),
        ({"q": torch.zeros(2, 9, 16, 576).bfloat16()}, "q has 9 query tokens, but the kernel"),
        ({"q": torch.zeros(2, 1, 16, 576)}, "q is float32, but must be bfloat16"),
        ({"q": torch.zeros(2, 1, 16, 576).to(FP8)}, "q is float8_e4m3fn, but must be bfloat16"),
        ({"kv": torch.zeros(4, 64, 576)}, "kv is float32, but must be bfloat16 or float8_e4m3fn"),
        ({"q": torch.zeros(2, 1, 32, 576).bfloat16()[:, :, ::2]}, "q is strided"),
        ({"kv": torch.zeros(4, 48, 576).bfloat16()}, "pages of 48 tokens"),
        ({"kv": torch.zeros(4, 64, 600).bfloat16()[..., :576]}, "kv's pages are strided"),
        ({"slots": torch.zeros(3).int()}, r"slots is \[3\], but must be \[2\]"),
        ({"context_lens": torch.zeros(2).long()}, "context_lens is int64, but must be int32"),
        ({"block_table": torch.zeros(4, 8).int()[:, ::2]}, "block_table's columns are 2 apart"),
        ({"scale": 0.0}, "scale is 0.0, but must be positive"),
    ],
)
def test_what_the_kernel_cannot_take_is_refused_in_a_sentence(change, sentence, blackwell):
    problem = replace(random_input(16, 1, 64, (64, 3)), **change)
    with pytest.raises(ValueError, match=sentence):
        mla_decode(*problem.arguments, ctas=1)


def test_no_rows_are_no_launch(blackwell):
    problem = random_input(16, 1, 64, (64,))
    none = replace(
        problem, q=problem.q[:0], slots=problem.slots[:0], context_lens=torch.empty(0).int()
    )
    assert mla_decode(*none.arguments, ctas=1).shape == (0, 1, 16, LATENT)
    assert not blackwell.runs


def test_a_result_that_is_not_contiguous_is_refused(blackwell):
    out = torch.zeros(1, 1, 32, LATENT, dtype=BF16)[:, :, ::2]
    with pytest.raises(ValueError, match="out is strided"):
        mla_decode(*random_input(16, 1, 64, (64,)).arguments, out=out, ctas=1)


def test_a_workspace_that_is_too_small_is_refused(blackwell):
    problem = random_input(16, 1, 64, (64,))
    with pytest.raises(ValueError, match=r"workspace has 100 elements, but 2 CTAs need 32832"):
        mla_decode(*problem.arguments, workspace=torch.zeros(100), ctas=2)


def test_the_package_imports_without_cutlass():
    code = "import sys; sys.modules['cutlass'] = None; import ts_kernels.cutedsl"
    subprocess.run([sys.executable, "-c", code], check=True)
