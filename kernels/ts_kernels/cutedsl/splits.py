# SPDX-License-Identifier: MIT
"""Who attends to what: a fixed grid of CTAs shares out the KV tiles that the lengths ask for.

Lay the tiles of all work end to end: row by row of the batch, within a row by group of query rows,
within a group by tile of its context. CTA c of C takes the c-th of C equal stretches of that line.
So every CTA has the same number of tiles (the last ones may have fewer) whatever the lengths are,
one long row is cut among all CTAs, and a short one may lie in one. The lengths are read on the
device: no host looks at them, and a captured graph serves all.

    line      |-- row 0, group 0 --|-- row 0, group 1 --|- row 1 -|- row 2 -| ...
    CTAs      |     0     |     1     |     2     |     3     |     4     |

A *piece* is what a CTA has of one (row, group). Only its first and its last piece can be shared
with other CTAs, so a partial result has one of two places for each CTA: `place_of`.

The functions are called by whole warps, and each warp that needs the answer computes it.
"""

from __future__ import annotations

import cutlass
import cutlass.cute as cute
from cutlass import Int32, Uint32

LANES = 32


def quotient(a: Int32, b: Int32) -> Int32:
    """Of numbers that are not negative, which is cheaper."""
    return Int32(Uint32(a) // Uint32(b))


@cute.jit
def tiles_of(length: Int32, tile: cutlass.Constexpr) -> Int32:
    """KV tiles of a context; none for one of length 0."""
    return quotient(length + (tile - 1), tile)


@cute.jit
def tiles_before(
    context_lens: cute.Tensor, row: Int32, tile: cutlass.Constexpr, groups: cutlass.Constexpr
) -> Int32:
    """On the line: tiles of all rows before `row`."""
    total = Int32(0)
    for r in cutlass.range(cute.arch.lane_idx(), row, LANES, unroll=1):
        total += tiles_of(context_lens[r], tile)
    return groups * cute.arch.warp_redux_sync(total, "add")


@cute.jit
def tiles_each(total: Int32, ctas: Int32) -> Int32:
    """Length of a CTA's stretch."""
    return quotient(total + ctas - 1, ctas)


@cute.jit
def row_at(
    context_lens: cute.Tensor, place: Int32, tile: cutlass.Constexpr, groups: cutlass.Constexpr
) -> tuple[Int32, Int32]:
    """The row that tile `place` of the line belongs to, and the tiles before that row."""
    rows = context_lens.shape[0]
    lane = cute.arch.lane_idx()
    before, passed, row, start = Int32(0), Int32(0), Int32(0), Int32(0)
    for first in cutlass.range(0, rows, LANES, unroll=1):
        tiles = Int32(0)
        if first + lane < rows:
            tiles = groups * tiles_of(context_lens[first + lane], tile)
        end = tiles
        for step in cutlass.range_constexpr(5):
            other = cute.arch.shuffle_sync_up(end, 1 << step)
            if lane >= (1 << step):
                end += other
        over = before + end <= place and first + lane < rows
        row += cute.arch.popc(cute.arch.vote_ballot_sync(over))
        passed = Int32(0)
        if over:
            passed = tiles
        start += cute.arch.warp_redux_sync(passed, "add")
        before += cute.arch.shuffle_sync(end, LANES - 1)
    return row, start


@cute.jit
def first_piece(
    context_lens: cute.Tensor, tile: cutlass.Constexpr, groups: cutlass.Constexpr
) -> tuple[Int32, Int32, Int32]:
    """Where this CTA begins: its row, the tile within the row's groups; and its tiles in all."""
    cta, _, _ = cute.arch.block_idx()
    ctas, _, _ = cute.arch.grid_dim()
    total = tiles_before(context_lens, context_lens.shape[0], tile, groups)
    each = tiles_each(total, ctas)
    begin = cta * each
    row, start = row_at(context_lens, begin, tile, groups)
    left = cutlass.max(cutlass.min(each, total - begin), Int32(0))
    return row, begin - start, left


@cute.jit
def piece_at(
    context_lens: cute.Tensor, row: Int32, at: Int32, left: Int32, tile: cutlass.Constexpr
) -> tuple[Int32, Int32, Int32, Int32, Int32]:
    """The piece that begins at tile `at` of a row's groups: its row, for rows without a context
    are stepped over; its group, the context's length; its first tile, and the one after its last.
    """
    length = context_lens[row]
    while length == 0:
        row += 1
        length = context_lens[row]
    tiles = tiles_of(length, tile)
    group = quotient(at, tiles)
    begin = at - group * tiles
    return row, group, length, begin, cutlass.min(tiles, begin + left)


@cute.jit
def next_piece(
    row: Int32,
    at: Int32,
    left: Int32,
    length: Int32,
    taken: Int32,
    tile: cutlass.Constexpr,
    groups: cutlass.Constexpr,
) -> tuple[Int32, Int32, Int32]:
    """Row, tile within the row's groups and tiles left after `taken` ones."""
    at += taken
    if at == groups * tiles_of(length, tile):
        row += 1
        at = Int32(0)
    return row, at, left - taken


@cute.jit
def place_of(cta: Int32, begins: cutlass.Boolean) -> Int32:
    """Where a CTA's partial result lies: it has two places, the second for work that it begins."""
    return 2 * cta + Int32(begins)
