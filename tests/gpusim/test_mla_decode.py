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
from dataclasses import dataclass, replace

import pytest
import torch
import ts_gpusim
from ts_gpusim.machine import Machine
from ts_kernels.cutedsl import mla_decode
from ts_kernels.cutedsl.mla import workspace_size
from ts_kernels.reference import attention as reference

LATENT, WIDTH = 512, 576
U = 2.0**-8
BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn
SMS = 8
NOWHERE = 1_000_000  # a page id past every pool


@pytest.fixture
def blackwell() -> Iterator[Machine]:
    machine = Machine()  # which raises what it finds
    with ts_gpusim.device("sm_100a", sms=SMS, execute=machine):
        yield machine


@dataclass(frozen=True)
class Input:
    q: torch.Tensor
    kv: torch.Tensor
    block_table: torch.Tensor
    slots: torch.Tensor
    context_lens: torch.Tensor
    scale: float = WIDTH**-0.5
    kv_scale: float = 1.0

    @property
    def arguments(self) -> tuple:
        return (
            self.q,
            self.kv,
            self.block_table,
            self.slots,
            self.context_lens,
            self.scale,
        )

    def keys(self, row: int) -> torch.Tensor:
        """[length, 576] in double."""
        length = int(self.context_lens[row])
        columns = -(-length // self.kv.shape[1])
        pages = self.block_table[self.slots[row], :columns].long()
        entries = self.kv.view(torch.uint8)[pages].view(self.kv.dtype)
        return entries.flatten(0, 1)[:length].double() * self.kv_scale


def random_input(
    heads: int, tokens: int, page: int, lengths: tuple[int, ...], dtype: torch.dtype = BF16
) -> Input:
    """Pages in random order; NaN wherever no row's context is, no page where none is needed."""
    make = torch.Generator().manual_seed(sum(lengths) + heads + tokens + page)
    needed = [-(-length // page) for length in lengths]
    pages = torch.randperm(sum(needed) + 3, generator=make).int()
    slots = torch.randperm(len(lengths) + 2, generator=make)[: len(lengths)].int()
    kv = torch.full((len(pages), page, WIDTH), math.nan)
    table = torch.full((len(lengths) + 2, max(needed)), NOWHERE, dtype=torch.int32)
    for length, slot, own in zip(lengths, slots, pages[:-3].split(needed), strict=True):
        table[slot, : len(own)] = own
        for i, p in enumerate(own.tolist()):
            count = min(page, length - i * page)
            kv[p, :count] = torch.randn(count, WIDTH, generator=make)
    q = torch.randn(len(lengths), tokens, heads, WIDTH, generator=make).to(dtype)
    return Input(q, kv.to(dtype), table, slots, torch.tensor(lengths, dtype=torch.int32))


def decode(given: Input, ctas: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows, tokens, heads, _ = given.q.shape
    lse = torch.full((rows, tokens, heads), math.nan)
    size = workspace_size(heads, tokens, ctas)
    workspace = torch.full((size,), math.nan)
    out = torch.full((rows, tokens, heads, LATENT), math.nan, dtype=torch.bfloat16)
    mla_decode(
        *given.arguments,
        kv_scale=given.kv_scale,
        out=out,
        lse=lse,
        workspace=workspace,
        ctas=ctas,
    )
    return out, lse


def assert_attention(given: Input, out: torch.Tensor, lse: torch.Tensor) -> None:
    """Within what this file's first lines derive."""
    tokens = given.q.shape[1]
    p, steps = (2.0**-4, 2.0**-14) if given.kv.dtype == FP8 else (U, 0.0)
    for row, length in enumerate(given.context_lens.tolist()):
        keys = given.keys(row)
        for i in range(tokens):
            visible = keys[: max(0, length - tokens + 1 + i)]
            if len(visible) == 0:
                assert not out[row, i].any() and bool((lse[row, i] == -math.inf).all())
                continue
            query = given.q[row, i].double()
            scores = query @ visible.T * given.scale
            weights = scores.softmax(-1)
            values = visible[:, :LATENT]
            expected, size = weights @ values, weights @ values.abs()
            products = (query.abs() @ visible.abs().T * given.scale).where(weights > 0, 0)
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
    given = random_input(*sizes)
    out, lse = decode(given, ctas)
    assert_attention(given, out, lse)
    if int(given.context_lens.min()) >= given.q.shape[1]:
        expected = reference.mla_decode(given.q.float(), given.kv.float(), *given.arguments[2:])
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
    given = replace(random_input(*sizes, dtype=FP8), kv_scale=0.75)
    assert_attention(given, *decode(given, ctas))


@pytest.mark.parametrize("dtype", [BF16, FP8])
def test_the_seed_changes_no_bit(dtype, blackwell):
    sizes = (16, 4, 16) if dtype == BF16 else (16, 1, 64)
    given = random_input(*sizes, (300, 65, 200), dtype)
    results = []
    for blackwell.seed in range(6):
        results.append(decode(given, 3))
    for out, lse in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(lse, results[0][1])


def test_rows_of_length_0_are_zeros_and_nobody_need_have_work(blackwell):
    out, lse = decode(random_input(16, 1, 64, (0, 0, 64)), 8)
    assert not out[:2].any() and bool((lse[:2] == -math.inf).all())
    given = random_input(16, 1, 64, (64,))
    none = replace(given, context_lens=torch.zeros(1, dtype=torch.int32))
    out, lse = decode(none, 3)
    assert not out.any() and bool((lse == -math.inf).all())


def test_several_rows_may_read_the_same_pages(blackwell):
    given = random_input(16, 1, 64, (300, 300))
    given = replace(given, slots=given.slots[:1].repeat(2))
    assert_attention(given, *decode(given, 3))


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_overflow_nowhere(size, blackwell):
    given = random_input(16, 1, 64, (300,))
    q = given.q.clone()
    q[..., 0] = abs(size) ** 0.5
    kv = given.kv.clone()
    kv[..., 0] = torch.where(kv[..., 0] > 1, size / abs(size) ** 0.5, kv[..., 0])
    given = replace(given, q=q, kv=kv, scale=1.0)
    assert_attention(given, *decode(given, 2))


def test_maxima_that_grow_with_every_key_rescale_what_is_there(blackwell):
    given = random_input(16, 1, 64, (400,))
    pages = given.block_table[given.slots[0], :7].long()
    kv = given.kv.clone()
    kv[pages, :, 0] = torch.arange(7 * 64).view(7, 64).bfloat16() / 8
    q = given.q.clone()
    q[..., 0] = torch.linspace(-2, 8, 16).bfloat16()  # some heads never, some at every tile
    given = replace(given, q=q, kv=kv, scale=1.0)
    for ctas in (1, 3):
        assert_attention(given, *decode(given, ctas))


@pytest.mark.parametrize("hidden", [slice(0, 128), slice(64, 200), slice(0, 299)])
def test_scores_of_minus_infinity_have_weight_0(hidden, blackwell):
    given = random_input(16, 1, 64, (300,))
    pages = given.block_table[given.slots[0], :5].long()
    keys = given.kv[pages].flatten(0, 1)
    keys[hidden, WIDTH - 1] = -1e30
    kv = given.kv.clone()
    kv[pages] = keys.view(5, 64, WIDTH)
    q = given.q.clone()
    q[..., WIDTH - 1] = 1e30
    keys[:, WIDTH - 1] = torch.where(keys[:, WIDTH - 1] > -1e29, 0, keys[:, WIDTH - 1])
    kv[pages] = keys.view(5, 64, WIDTH)
    given = replace(given, q=q, kv=kv)
    for ctas in (1, 5):
        assert_attention(given, *decode(given, ctas))


def test_every_kv_byte_is_read_once_for_each_group_of_query_rows(blackwell):
    lengths = (300, 65, 1000)
    given = random_input(16, 4, 16, lengths)
    decode(given, 4)
    entries = sum(-(-length // 16) * 16 for length in lengths)
    pieces = len(lengths) + 4 - 1  # four CTAs cut the line of work three times
    queries = pieces * 64 * WIDTH * 2
    copied = blackwell.runs[0].counters.global_copied_in
    assert entries * WIDTH * 2 < copied <= entries * WIDTH * 2 + queries


def test_the_grid_is_the_device_s_sms_if_nobody_says(blackwell):
    given = random_input(16, 1, 64, (300, 65))
    assert_attention(given, mla_decode(*given.arguments), decode(given, 8)[1])
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
        ({"scale": 0.0}, "scale is 0.0, but must be positive"),
    ],
)
def test_what_the_kernel_cannot_take_is_refused_in_a_sentence(change, sentence, blackwell):
    given = replace(random_input(16, 1, 64, (64, 3)), **change)
    with pytest.raises(ValueError, match=sentence):
        mla_decode(*given.arguments, ctas=1)


def test_a_workspace_that_is_too_small_is_refused(blackwell):
    given = random_input(16, 1, 64, (64,))
    with pytest.raises(ValueError, match=r"workspace has 100 elements, but 2 CTAs need 32832"):
        mla_decode(*given.arguments, workspace=torch.zeros(100), ctas=2)


def test_the_package_imports_without_cutlass():
    code = "import sys; sys.modules['cutlass'] = None; import ts_kernels.cutedsl"
    subprocess.run([sys.executable, "-c", code], check=True)
