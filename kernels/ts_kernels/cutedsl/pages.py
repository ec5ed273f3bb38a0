# SPDX-License-Identifier: MIT
"""Which pages a tile of keys is in: a warp holds 32 page ids of the block table, one a lane."""

from __future__ import annotations

import cutlass
import cutlass.cute as cute
from cutlass import Int32

HELD = 32  # page ids


class PageReader:
    """boxes: pieces of a tile that lie in a page each."""

    def __init__(self, page_size: int, tile: int) -> None:
        self.page_size = page_size
        self.boxes = max(1, tile // page_size)
        self.parts = max(1, page_size // tile)  # tiles of a page
        self.tiles = HELD * self.parts // self.boxes  # whose ids are held at a time

    def first_held(self, tile: Int32) -> Int32:
        """The table's column that lane 0 is to hold while this tile is read."""
        return tile // self.tiles * HELD

    def begins_at(self, tile: Int32) -> cutlass.Boolean:
        return tile % self.tiles == 0

    @cute.jit
    def read(self, mTable: cute.Tensor, slot: Int32, columns: Int32, first: Int32) -> Int32:
        """A lane's id. Columns that a context does not need are not read."""
        column = first + cute.arch.lane_idx()
        page = Int32(0)
        if column < columns:
            page = mTable[slot, column]
        return page

    @cute.jit
    def page(
        self,
        held: Int32,
        tile: Int32,
        box: cutlass.Constexpr,
        columns: Int32,
        none: Int32,
    ) -> Int32:
        """The page of a box; `none` where the context has ended."""
        column = tile // self.parts * self.boxes + box
        page = cute.arch.shuffle_sync(held, column % HELD)
        if column >= columns:
            page = Int32(none)
        return page

    def part(self, tile: Int32) -> Int32:
        """Which tile of the page."""
        return tile % self.parts
