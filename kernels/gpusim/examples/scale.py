# SPDX-License-Identifier: MIT
"""y = 2 x, tile by tile, with a planted bug: docs/gpusim.md follows how it is found.

    warp 4        TMA load of the next tile          waits for `free`, announces `filled`
    warps 0 to 3  double the tile in shared memory,  wait for `filled`
                  TMA store of it by warp 0          announces `free`

Two tiles are in shared memory at a time. Run with `--fixed`, the kernel is right.
"""

from __future__ import annotations

import sys

import cutlass
import cutlass.cute as cute
import cutlass.memory
import torch
from cutlass.cute.nvgpu import cpasync
from cutlass.cute.runtime import from_dlpack

TILE = 64  # rows and columns
STAGES = 2
TILE_BYTES = TILE * TILE * 4
THREADS = 128  # that double; one more warp loads
CTAS = 4


class Scale:
    """mX, mY: [rows, 64] f32, rows a multiple of 64."""

    def __init__(self, fixed: bool) -> None:
        self.fixed = fixed

    @cute.jit
    def __call__(self, mX: cute.Tensor, mY: cute.Tensor):
        tile = cute.make_layout((TILE, TILE), stride=(TILE, 1))
        load, tma_x = cpasync.make_tiled_tma_atom(
            cpasync.CopyBulkTensorTileG2SOp(), mX, tile, (TILE, TILE)
        )
        store, tma_y = cpasync.make_tiled_tma_atom(
            cpasync.CopyBulkTensorTileS2GOp(), mY, tile, (TILE, TILE)
        )
        self.kernel(load, tma_x, store, tma_y).launch(grid=[CTAS, 1, 1], block=[THREADS + 32, 1, 1])

    @cute.kernel
    def kernel(
        self, load: cute.CopyAtom, tma_x: cute.Tensor, store: cute.CopyAtom, tma_y: cute.Tensor
    ):
        thread, _, _ = cute.arch.thread_idx()
        block, _, _ = cute.arch.block_idx()
        warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())

        allocator = cutlass.memory.SmemAllocator()
        filled = allocator.allocate_array(cutlass.Int64, STAGES)
        free = allocator.allocate_array(cutlass.Int64, STAGES)
        stages = cute.make_layout((TILE, TILE, STAGES), stride=(TILE, 1, TILE * TILE))
        sX = allocator.allocate_tensor(cutlass.Float32, stages, 128)
        if thread == 0:
            for stage in cutlass.range_constexpr(STAGES):
                cute.arch.mbarrier_init(filled + stage, 1)
                cute.arch.mbarrier_init(free + stage, 1)
        cute.arch.mbarrier_init_fence()
        cute.arch.barrier()

        gX = cute.local_tile(tma_x, (TILE, TILE), (None, 0))
        gY = cute.local_tile(tma_y, (TILE, TILE), (None, 0))
        one, shared = cute.make_layout(1), cute.group_modes(sX, 0, 2)
        to_x, from_x = cpasync.tma_partition(load, 0, one, shared, cute.group_modes(gX, 0, 2))
        from_y, to_y = cpasync.tma_partition(store, 0, one, shared, cute.group_modes(gY, 0, 2))
        tiles = cute.size(gX, mode=[2]) // CTAS
        if warp == THREADS // 32:
            self.load_tiles(load, to_x, from_x, filled, free, block * tiles, tiles)
        else:
            self.double_tiles(store, from_y, to_y, sX, filled, free, block * tiles, tiles)

    @cute.jit
    def load_tiles(
        self,
        load: cute.CopyAtom,
        to_x: cute.Tensor,
        from_x: cute.Tensor,
        filled: cute.Pointer,
        free: cute.Pointer,
        first: cutlass.Int32,
        tiles: cutlass.Int32,
    ):
        for i in cutlass.range(tiles, unroll=1):
            stage, turn = i % STAGES, i // STAGES
            cute.arch.mbarrier_wait(free + stage, (turn + 1) % 2)
            with cute.arch.elect_one():
                cute.arch.mbarrier_arrive_and_expect_tx(filled + stage, TILE_BYTES)
            cute.copy(load, from_x[None, first + i], to_x[None, stage], tma_bar_ptr=filled + stage)

    @cute.jit
    def double_tiles(
        self,
        store: cute.CopyAtom,
        from_y: cute.Tensor,
        to_y: cute.Tensor,
        sX: cute.Tensor,
        filled: cute.Pointer,
        free: cute.Pointer,
        first: cutlass.Int32,
        tiles: cutlass.Int32,
    ):
        thread, _, _ = cute.arch.thread_idx()
        warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
        for i in cutlass.range(tiles, unroll=1):
            stage, turn = i % STAGES, i // STAGES
            cute.arch.mbarrier_wait(filled + stage, turn % 2)
            for row in cutlass.range(TILE // 2, unroll=1):
                place = (2 * row + thread // TILE, thread % TILE, stage)
                sX[place] = 2.0 * sX[place]
            if cutlass.const_expr(self.fixed):
                cute.arch.fence_proxy("async.shared", space="cta")
            cute.arch.barrier(barrier_id=1, number_of_threads=THREADS)
            if warp == 0:
                with cute.arch.elect_one():
                    cute.copy(store, from_y[None, stage], to_y[None, first + i])
                    cute.arch.cp_async_bulk_commit_group()
                    cute.arch.cp_async_bulk_wait_group(0, read=True)
                    cute.arch.mbarrier_arrive(free + stage)


def main() -> None:
    x = torch.arange(16 * TILE * TILE, dtype=torch.float32).view(-1, TILE)
    y = torch.zeros_like(x)
    Scale(fixed="--fixed" in sys.argv)(from_dlpack(x), from_dlpack(y))
    assert torch.equal(y, 2 * x)
    print("y is 2 x")


if __name__ == "__main__":
    main()
