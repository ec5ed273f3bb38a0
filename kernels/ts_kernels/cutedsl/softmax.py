# SPDX-License-Identifier: MIT
"""Online softmax of scores that lie transposed: keys along the lanes, query rows along registers.

Four warps have a tile of 64 keys. A warp has 16 of them, in the layout of `tcgen05.ld.16x256b`,
which is that of an accumulator of `mma.m16n8` too (PTX ISA, 9.7.16.2.3.1 and 9.7.14.5.8):

    value 4 j + 2 h + e of lane l: key l / 4 + 8 h, query row 8 j + 2 (l % 4) + e

so a lane has two keys of N / 4 query rows, `of_row` numbers these 2 j + e, and maxima and sums over
keys go across the eight lanes of equal l % 4, then across the warps through shared memory.

Weights are exp2(c (s - m) + offset), c = scale log2 e, with m the running maximum of a row. m may
lag behind the true maximum by at most `slack` in the exponent: so O need be rescaled only where a
maximum really grows (Zadouri et al., FlashAttention-4), and weights are at most 2^(offset + slack).
bf16 needs no offset. e4m3 ends at 448 and at 2^-9: with an offset of 4, 2^-13 of the greatest
weight is still a number. A row that has seen nothing yet has m = -inf; there it is taken as 0, so
weights are exp2(-inf) = 0 and no NaN arises.
"""

from __future__ import annotations

from dataclasses import dataclass

import cutlass
import cutlass.cute as cute
from cutlass import Float32, Int32

WARPS = 4
THREADS = 32 * WARPS
KEYS = 16  # of a warp


@dataclass(frozen=True)
class Range:
    """Exponents (base 2) of weights."""

    offset: float
    slack: float


def range_of(dtype: type[cutlass.Numeric]) -> Range:
    return Range(offset=4.0, slack=4.0) if dtype.width == 8 else Range(offset=0.0, slack=8.0)


def values_of(rows: int) -> int:
    """Scores of a thread."""
    return rows * KEYS // 32


def rows_of(rows: int) -> int:
    """Query rows of a thread."""
    return rows // 4


@cute.jit
def row_at(i: cutlass.Constexpr, lane: Int32) -> Int32:
    """The query row that a lane numbers `i`."""
    return 8 * (i // 2) + 2 * (lane % 4) + i % 2


@cute.jit
def key_at(half: cutlass.Constexpr, lane: Int32, warp: Int32) -> Int32:
    """A thread's first (half 0) or second key of the tile."""
    return KEYS * warp + lane // 4 + 8 * half


@cute.jit
def mask_scores(
    scores: cute.Tensor,
    visible: cute.Tensor,
    first_key: Int32,
    lane: Int32,
    warp: Int32,
):
    """-inf, whatever stands there, from key `visible[i]` of the context on; a tile begins at key
    `first_key`.
    """
    for v in cutlass.range_constexpr(cute.size(scores)):
        i = 2 * (v // 4) + v % 2
        key = first_key + key_at(v // 2 % 2, lane, warp)
        if key >= visible[i]:
            scores[v] = -Float32.inf


@cute.jit
def over_keys(values: cute.Tensor, maximum: cutlass.Constexpr):
    """Each to the maximum (else the sum) over the keys of the warp."""
    for i in cutlass.range_constexpr(cute.size(values)):
        for step in cutlass.range_constexpr(3):
            other = cute.arch.shuffle_sync_bfly(values[i], 4 << step)
            if cutlass.const_expr(maximum):
                values[i] = cute.arch.fmax(values[i], other)
            else:
                values[i] = values[i] + other


@cute.jit
def tile_maximum(scores: cute.Tensor, maximum: cute.Tensor):
    """Over the keys of the warp, of each query row of the thread."""
    for i in cutlass.range_constexpr(cute.size(maximum)):
        v = 4 * (i // 2) + i % 2
        maximum[i] = cute.arch.fmax(scores[v], scores[v + 2])
    over_keys(maximum, True)


@cute.jit
def share(values: cute.Tensor, sWarps: cute.Tensor, lane: Int32, warp: Int32):
    """sWarps[row, warp]: values that all lanes of equal l % 4 agree on."""
    if lane < 4:
        for i in cutlass.range_constexpr(cute.size(values)):
            sWarps[row_at(i, lane), warp] = values[i]


@cute.jit
def collect_maximum(values: cute.Tensor, sWarps: cute.Tensor, lane: Int32):
    for i in cutlass.range_constexpr(cute.size(values)):
        others = cute.make_rmem_tensor(WARPS, Float32)
        cute.autovec_copy(sWarps[row_at(i, lane), None], others)
        for w in cutlass.range_constexpr(WARPS):
            values[i] = cute.arch.fmax(values[i], others[w])


@cute.jit
def has_grown(
    top: cute.Tensor, maximum: cute.Tensor, scale: Float32, range_: cutlass.Constexpr
) -> cutlass.Boolean:
    """Whether any row's maximum exceeds its m by more than the slack; all warps say the same."""
    grown = cutlass.Boolean(False)
    for i in cutlass.range_constexpr(cute.size(top)):
        grown = grown | ((maximum[i] - top[i]) * scale > range_.slack)
    return cute.arch.vote_any_sync(grown)


@cute.jit
def base_of(top: Float32, scale: Float32) -> Float32:
    """c m, 0 for a row that has seen nothing."""
    base = top * scale
    if top == -Float32.inf:
        base = Float32(0.0)
    return base


@cute.jit
def raise_tops(
    top: cute.Tensor, total: cute.Tensor, maximum: cute.Tensor, factor: cute.Tensor, scale: Float32
):
    """m becomes the maximum; sums and, by `factor`, O follow."""
    for i in cutlass.range_constexpr(cute.size(top)):
        new = cute.arch.fmax(top[i], maximum[i])
        factor[i] = cute.math.exp2(top[i] * scale - base_of(new, scale), fastmath=True)
        total[i] = total[i] * factor[i]
        top[i] = new


@cute.jit
def weigh(
    scores: cute.Tensor,
    top: cute.Tensor,
    total: cute.Tensor,
    scale: Float32,
    range_: cutlass.Constexpr,
):
    """Scores to weights; `total` grows by those of this thread's keys."""
    for i in cutlass.range_constexpr(cute.size(top)):
        base = base_of(top[i], scale) - range_.offset
        for h in cutlass.range_constexpr(2):
            v = 4 * (i // 2) + 2 * h + i % 2
            scores[v] = cute.math.exp2(scores[v] * scale - base, fastmath=True)
            total[i] = total[i] + scores[v]
