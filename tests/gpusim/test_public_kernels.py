# SPDX-License-Identifier: MIT
"""Public kernels on the software GPU: their results are those of the formula, for any seed.

tokenspeed-mla's decode and prefill for Blackwell, and a GEMM for Hopper of our own.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import gpusim_hopper_gemm
import pytest
import tokenspeed_mla.mla_decode
import tokenspeed_mla.mla_prefill
import tokenspeed_mla.utils
import torch
import ts_gpusim
from ts_gpusim.faults import Fault, Finding
from ts_gpusim.machine import Machine

LATENT, ROPE = 512, 64
TILE = 128  # keys that the decode kernels take at a time
SMS = 16  # few splits of the keys: their partial results are summed in float
LOG2_E = math.log2(math.e)
FP8 = torch.float8_e4m3fn


# What is known to be wrong in tokenspeed-mla 2.0.4: the lines of both instructions.
#
# From one tile to the next, a warp may overwrite its maximum before another has read it: the buffer
# of the exchange is single, and there is one barrier for a tile.
BETWEEN_TILES = {
    ("mla_decode_fp16.py:3083", "mla_decode_fp16.py:3087"),
    ("mla_decode_fp8.py:3733", "mla_decode_fp8.py:3741"),
}
# What tcgen05.ld loads is used, or its place in tensor memory is given back, without
# tcgen05.wait::ld.
DECODE_FINDINGS = BETWEEN_TILES | {
    ("mla_decode_fp16.py:2893", "mla_decode_fp16.py:2973"),
    ("mla_decode_fp16.py:2893", "mla_decode_fp16.py:315"),
    ("mla_decode_fp16.py:3375", "mla_decode_fp16.py:3475"),
    ("mla_decode_fp16.py:3429", "mla_decode_fp16.py:3434"),
    ("mla_decode_fp16.py:3437", "mla_decode_fp16.py:3429"),
    ("mla_decode_fp16.py:3500", "mla_decode_fp16.py:3506"),
    ("mla_decode_fp8.py:4116", "mla_decode_fp8.py:4235"),
    ("mla_decode_fp8.py:4275", "mla_decode_fp8.py:4287"),
    ("mla_decode_fp8.py:4275", "mla_decode_fp8.py:4314"),
    # The last release of P arrives in the second CTA, which may have ended: nobody waits for it.
    ("mla_decode_fp8.py:3046", "mla_decode_fp8.py:450"),
}
PREFILL_FINDINGS = {
    ("fmha.py:1295", "fmha.py:321"),  # the last commit: nobody waits for its arrival
    ("fmha.py:1995", "fmha.py:321"),
    ("fmha.py:1995", "fmha_helpers.py:1048"),
    ("fmha.py:2043", "fmha.py:2058"),
    ("fmha.py:2048", "fmha.py:2078"),
    ("fmha.py:2070", "fmha.py:2098"),
    ("fmha.py:2090", "fmha.py:2118"),
    ("fmha.py:2944", "fmha.py:2944"),
    ("fmha.py:2944", "fmha.py:2946"),
    *(("fmha.py:1531", f"fmha.py:{line}") for line in (1995, 2944)),
    *(("fmha.py:1589", f"fmha.py:{line}") for line in (1995, 2043, 2048, 2070, 2090)),
    *(("fmha.py:2227", f"fmha.py:{line}") for line in (1995, 2043)),
    *(("fmha.py:2331", f"fmha.py:{line}") for line in (1995, 2048, 2070)),
}


def lines(findings: list[Finding]) -> set[tuple[str, ...]]:
    """The source lines of the two instructions of each."""
    return {tuple(re.findall(r"(\w+\.py:\d+)\)", finding.sentence)) for finding in findings}


@pytest.fixture
def blackwell() -> Iterator[Machine]:
    machine = Machine(collect=True)  # the kernels have races, which the tests name
    tokenspeed_mla.utils.get_num_sm.cache_clear()
    with ts_gpusim.device("sm_100a", sms=SMS, execute=machine):
        yield machine
    tokenspeed_mla.utils.get_num_sm.cache_clear()


@pytest.fixture
def hopper() -> Iterator[Machine]:
    machine = Machine()
    with ts_gpusim.device("sm_90a", execute=machine):
        yield machine


# Decode


@dataclass(frozen=True)
class DecodeInput:
    """query: [batch, q, heads, 576]; cache: [pages, page, 576], rope part last in both."""

    query: torch.Tensor
    cache: torch.Tensor
    pages: torch.Tensor  # [batch, pages of the tiles of the longest] int32
    lengths: torch.Tensor  # [batch] int32
    scale: float

    def keys(self, request: int) -> torch.Tensor:
        """[keys, 576] float, those of one request in their order."""
        rows = self.cache.float()[self.pages[request].long()].reshape(-1, LATENT + ROPE)
        return rows[: int(self.lengths[request])]

    def scores(self, request: int) -> torch.Tensor:
        """[q, heads, keys] in log2 units; query token i of q sees all keys but the last q-1-i."""
        query = self.query[request].float()
        keys = self.keys(request)
        scores = torch.einsum("qhd,kd->qhk", query, keys) * (self.scale * LOG2_E)
        visible = torch.ones(len(query), len(keys), dtype=torch.bool).tril(len(keys) - len(query))
        return scores.masked_fill(~visible[:, None], -math.inf)


def decode_input(
    dtype: torch.dtype, heads: int, queries: int, page: int, lengths: tuple[int, ...]
) -> DecodeInput:
    generator = torch.Generator().manual_seed(sum(lengths) + heads)
    # The FP8 kernel reads a tile's pages, also of a last tile that is not full.
    batch, most = len(lengths), -(-max(lengths) // TILE) * max(TILE // page, 1)
    unused = 3  # pages between those of the requests
    order = torch.randperm(batch * most + unused, generator=generator)
    return DecodeInput(
        query=torch.randn(batch, queries, heads, LATENT + ROPE, generator=generator).to(dtype),
        cache=torch.randn(len(order), page, LATENT + ROPE, generator=generator).to(dtype),
        pages=order[: batch * most].view(batch, most).int(),
        lengths=torch.tensor(lengths, dtype=torch.int32),
        scale=(LATENT + ROPE) ** -0.5,
    )


def decode(given: DecodeInput) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernel's output [batch, q, heads, 512] and log2-sum-exp [batch, q, heads]."""
    return tokenspeed_mla.mla_decode.tokenspeed_mla_decode(
        given.query,
        given.cache,
        torch.zeros(1 << 24, dtype=torch.int8),
        LATENT,
        ROPE,
        given.pages,
        given.lengths,
        int(given.lengths.max()),
        given.scale,
        return_lse=True,
    )


def log2_sum_exp(scores: torch.Tensor) -> torch.Tensor:
    return (scores / LOG2_E).logsumexp(-1) * LOG2_E


def rounded_weights(scores: torch.Tensor, dtype: torch.dtype, splits: int) -> torch.Tensor:
    """As the decode kernels round them: to `dtype`, below their own running maximum.

    Each split of the keys goes over its tiles. In FP8 the maximum stays while it grows by at most
    8, so that a weight is at most 2^8. Weights are summed in float, and rounded for the product.
    """
    allowed = 8 if dtype == FP8 else 0
    tiles = scores.split(TILE, dim=-1)
    each = -(-len(tiles) // splits)
    total = log2_sum_exp(scores)[..., None]
    rounded = []
    for first in range(0, len(tiles), each):
        top = torch.full((*scores.shape[:-1], 1), -math.inf)
        for tile in tiles[first : first + each]:
            grown = torch.maximum(top, tile.amax(-1, keepdim=True))
            top = torch.where(grown - top <= allowed, top, grown)
            weights = torch.exp2(tile - top).nan_to_num().to(dtype).float()
            rounded.append(weights * torch.exp2(top - total))
    return torch.cat(rounded, dim=-1)


DECODE_SHAPES = [
    # dtype, heads, query tokens, page, lengths; each of the others is compiled once
    (torch.bfloat16, 128, 1, 64, (256,)),
    (torch.bfloat16, 128, 1, 64, (1,)),
    (torch.bfloat16, 128, 1, 64, (127, 700)),
    (torch.bfloat16, 8, 4, 32, (140,)),
    (torch.bfloat16, 8, 4, 32, (4, 97, 129)),
    (torch.bfloat16, 64, 2, 128, (130, 259)),
    (torch.bfloat16, 64, 2, 128, (2,)),
    (torch.float16, 16, 2, 64, (100,)),
    (torch.float16, 16, 2, 64, (385, 64)),
    (FP8, 128, 1, 64, (256,)),
    (FP8, 128, 1, 64, (500,)),
    (FP8, 128, 1, 64, (333, 65)),
    (FP8, 16, 4, 32, (200,)),
    (FP8, 16, 4, 32, (133, 500)),
    (FP8, 64, 3, 128, (150, 130)),
]


def name_of(shape: tuple) -> str:
    dtype, heads, queries, page, lengths = shape
    kind = str(dtype).removeprefix("torch.")
    return f"{kind}-{heads}h-{queries}q-{page}p-{'_'.join(map(str, lengths))}"


@pytest.mark.slow
@pytest.mark.parametrize("shape", DECODE_SHAPES, ids=name_of)
def test_mla_decode_is_attention(shape, blackwell):
    given = decode_input(*shape)
    output, lse = decode(given)
    splits = blackwell.runs[0].launch.grid[2]
    tiles = -(-int(given.lengths.max()) // TILE)
    found = lines(blackwell.findings)
    assert found <= DECODE_FINDINGS
    assert tiles > splits or not {pair for pair in found if pair in BETWEEN_TILES}
    for request in range(len(given.lengths)):
        scores = given.scores(request)
        weights = rounded_weights(scores, given.query.dtype, splits)
        expected = torch.einsum("qhk,kd->qhd", weights, given.keys(request)[:, :LATENT])
        # The result is rounded to 8 bits (bf16, from FP8 too) or more.
        assert_close(output[request], expected, 1e-3, 2**-8)
        assert_close(lse[request], log2_sum_exp(scores), 1e-5, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape", [DECODE_SHAPES[2], DECODE_SHAPES[4], DECODE_SHAPES[13]], ids=name_of
)
def test_mla_decode_has_the_same_bits_whatever_the_seed(shape, blackwell):
    given = decode_input(*shape)
    assert_same_bits_for_three_seeds(blackwell, lambda: decode(given))


@pytest.mark.slow
def test_the_fp8_decode_kernel_reads_past_a_page_table_that_ends_within_a_tile(blackwell):
    given = decode_input(FP8, 16, 4, 32, (200,))
    pages = given.pages[:, :7].clone()  # 224 keys
    with pytest.raises(Fault, match=r"past the end of page_table \[1, 7\]"):
        decode(dataclasses.replace(given, pages=pages))


# Prefill


def prefill_input(lengths: tuple[int, ...], heads: int) -> list[torch.Tensor]:
    """query, key: [tokens, heads, 192]; value: [tokens, heads, 128]; where each request begins."""
    generator = torch.Generator().manual_seed(sum(lengths))
    shapes = [(sum(lengths), heads, size) for size in (192, 192, 128)]
    tensors = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
    return [*tensors, torch.tensor([0, *lengths]).cumsum(0).int()]


def prefill(query, key, value, starts) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = starts.diff()
    return tokenspeed_mla.mla_prefill.tokenspeed_mla_prefill(
        query,
        key,
        value,
        lengths,
        starts,
        int(lengths.max()),
        len(lengths),
        query.shape[-1] ** -0.5,
        is_causal=True,
        return_lse=True,
    )


PREFILL_SHAPES = [((128,), 2), ((200,), 1), ((1,), 1), ((77, 300), 2)]


@pytest.mark.slow
@pytest.mark.parametrize(("lengths", "heads"), PREFILL_SHAPES)
def test_mla_prefill_is_causal_attention(lengths, heads, blackwell):
    query, key, value, starts = prefill_input(lengths, heads)
    output, lse = prefill(query, key, value, starts)
    assert lines(blackwell.findings) <= PREFILL_FINDINGS
    for begin, end in starts.unfold(0, 2, 1).tolist():
        q, k, v = (tensor[begin:end].float() for tensor in (query, key, value))
        scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
        seen = torch.ones(len(q), len(q), dtype=torch.bool).tril()
        scores = scores.masked_fill(~seen, -math.inf)
        expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
        assert_close(output[begin:end], expected, 8e-3, 2**-7)  # P is rounded to bf16
        assert_close(lse[begin:end], scores.logsumexp(-1).T, 1e-5, 1e-5)


@pytest.mark.slow
def test_mla_prefill_has_the_same_bits_whatever_the_seed(blackwell):
    given = prefill_input((150, 30), heads=1)
    assert_same_bits_for_three_seeds(blackwell, lambda: prefill(*given))


# Hopper

hopper_gemm = functools.cache(gpusim_hopper_gemm.compiled)


@pytest.mark.parametrize("b_mn_major", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), [(64, 64, 64), (128, 192, 256), (64, 128, 1024)])
def test_a_hopper_gemm_is_a_product(m, n, k, b_mn_major, hopper):
    a, b, c = gemm_input(m, n, k, b_mn_major)
    hopper_gemm(b_mn_major)(a, b, c)
    assert_close(c, a.float() @ b.float().T, 1e-4, 1e-5)


@pytest.mark.parametrize("b_mn_major", [False, True])
def test_a_hopper_gemm_has_the_same_bits_whatever_the_seed(b_mn_major, hopper):
    def product() -> list[torch.Tensor]:
        a, b, c = gemm_input(128, 64, 256, b_mn_major)
        hopper_gemm(b_mn_major)(a, b, c)
        return [c]

    assert_same_bits_for_three_seeds(hopper, product)


def gemm_input(m: int, n: int, k: int, b_mn_major: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(m + n + k)
    a = torch.randn(m, k, generator=generator).bfloat16()
    b = torch.randn(n, k, generator=generator).bfloat16()
    return [a, b.T.contiguous().T if b_mn_major else b, torch.zeros(m, n)]


# What the tests share


def assert_close(
    found: torch.Tensor, expected: torch.Tensor, absolute: float, relative: float
) -> None:
    torch.testing.assert_close(found.float(), expected, atol=absolute, rtol=relative)


def assert_same_bits_for_three_seeds(
    machine: Machine, run: Callable[[], Sequence[torch.Tensor]]
) -> None:
    runs = []
    for machine.seed in (1, 2, 3):
        runs.append([tensor.view(torch.uint8) for tensor in run()])
    machine.seed = 0
    assert all(
        torch.equal(*pair) for other in runs[1:] for pair in zip(runs[0], other, strict=True)
    )
