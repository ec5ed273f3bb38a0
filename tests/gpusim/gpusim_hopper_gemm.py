# SPDX-License-Identifier: MIT
"""A small GEMM for Hopper: TMA brings tiles of A and B, one warp group multiplies them (wgmma).

C[m, n] = sum over k of A[m, k] B[n, k]      bf16 in, float out, one 64 x 64 tile for a CTA
"""

from __future__ import annotations

import cutlass
import cutlass.cute as cute
import cutlass.memory
import cutlass.utils.hopper_helpers
from cutlass.cute.nvgpu import OperandMajorMode, cpasync, warpgroup
from cutlass.cute.runtime import make_fake_tensor

TILE = 64  # of M, N and K
THREADS = 128


class Gemm:
    """mA: [M, K], mB: [N, K], mC: [M, N]. `b_mn_major`: the elements of a column of B adjoin."""

    def __init__(self, b_mn_major: bool) -> None:
        self.b_major = OperandMajorMode.MN if b_mn_major else OperandMajorMode.K
        atoms = warpgroup.SmemLayoutAtomKind
        self.b_atom = atoms.MN_SW128 if b_mn_major else atoms.K_SW128

    @cute.jit
    def __call__(self, mA: cute.Tensor, mB: cute.Tensor, mC: cute.Tensor):
        mma = cutlass.utils.hopper_helpers.make_trivial_tiled_mma(
            cutlass.BFloat16,
            cutlass.BFloat16,
            OperandMajorMode.K,
            self.b_major,
            cutlass.Float32,
            (1, 1, 1),
            (TILE, TILE),
        )
        a_layout = self.tile_layout(warpgroup.SmemLayoutAtomKind.K_SW128)
        b_layout = self.tile_layout(self.b_atom)
        load = cpasync.CopyBulkTensorTileG2SOp()
        load_a, tma_a = cpasync.make_tiled_tma_atom(load, mA, a_layout, (TILE, TILE))
        load_b, tma_b = cpasync.make_tiled_tma_atom(load, mB, b_layout, (TILE, TILE))
        grid = [cute.ceil_div(mA.shape[0], TILE), cute.ceil_div(mB.shape[0], TILE), 1]
        self.kernel(mma, load_a, tma_a, load_b, tma_b, mC, a_layout, b_layout).launch(
            grid=grid, block=[THREADS, 1, 1]
        )

    @cute.jit
    def tile_layout(self, kind: cutlass.Constexpr):
        atom = warpgroup.make_smem_layout_atom(kind, cutlass.BFloat16)
        return cute.tile_to_shape(atom, (TILE, TILE), order=(0, 1))

    @cute.kernel
    def kernel(
        self,
        mma: cute.TiledMma,
        load_a: cute.CopyAtom,
        tma_a: cute.Tensor,
        load_b: cute.CopyAtom,
        tma_b: cute.Tensor,
        mC: cute.Tensor,
        a_layout: cute.ComposedLayout,
        b_layout: cute.ComposedLayout,
    ):
        thread, _, _ = cute.arch.thread_idx()
        block_m, block_n, _ = cute.arch.block_idx()
        warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())

        allocator = cutlass.memory.SmemAllocator()
        tiles_here = allocator.allocate_array(cutlass.Int64, 1)
        sA = allocator.allocate_tensor(
            cutlass.BFloat16, a_layout.outer, 1024, swizzle=a_layout.inner
        )
        sB = allocator.allocate_tensor(
            cutlass.BFloat16, b_layout.outer, 1024, swizzle=b_layout.inner
        )
        if warp == 0:
            with cute.arch.elect_one():
                cute.arch.mbarrier_init(tiles_here, 1)
        cute.arch.mbarrier_init_fence()
        cute.arch.barrier()

        gA = cute.local_tile(tma_a, (TILE, TILE), (block_m, None))
        gB = cute.local_tile(tma_b, (TILE, TILE), (block_n, None))
        gC = cute.local_tile(mC, (TILE, TILE), (block_m, block_n))
        to_a, from_a = cpasync.tma_partition(
            load_a,
            0,
            cute.make_layout(1),
            cute.group_modes(sA, 0, 2),
            cute.group_modes(gA, 0, 2),
        )
        to_b, from_b = cpasync.tma_partition(
            load_b,
            0,
            cute.make_layout(1),
            cute.group_modes(sB, 0, 2),
            cute.group_modes(gB, 0, 2),
        )
        group = mma.get_slice(0)
        rA = mma.make_fragment_A(group.partition_A(sA))
        rB = mma.make_fragment_B(group.partition_B(sB))
        tCgC = mma.get_slice(thread).partition_C(gC)
        accumulator = cute.make_rmem_tensor(tCgC.shape[:3], cutlass.Float32)

        mma.set(warpgroup.Field.ACCUMULATE, False)
        for k_tile in cutlass.range(cute.size(gA, mode=[2]), unroll=1):
            if warp == 0:
                with cute.arch.elect_one():
                    cute.arch.mbarrier_arrive_and_expect_tx(tiles_here, 2 * TILE * TILE * 2)
                cute.copy(load_a, from_a[None, k_tile], to_a, tma_bar_ptr=tiles_here)
                cute.copy(load_b, from_b[None, k_tile], to_b, tma_bar_ptr=tiles_here)
            cute.arch.mbarrier_wait(tiles_here, k_tile % 2)
            warpgroup.fence()
            for k_block in cutlass.range_constexpr(cute.size(rA, mode=[2])):
                cute.gemm(
                    mma,
                    accumulator,
                    rA[None, None, k_block],
                    rB[None, None, k_block],
                    accumulator,
                )
                mma.set(warpgroup.Field.ACCUMULATE, True)
            warpgroup.commit_group()
            warpgroup.wait_group(0)
            cute.arch.barrier()  # the next tiles take the place of these
        cute.autovec_copy(accumulator, tCgC)


def compiled(b_mn_major: bool):
    """A function of three host tensors, whatever their sizes (multiples of 64)."""
    return cute.compile(
        Gemm(b_mn_major),
        _matrix(cutlass.BFloat16, contiguous=1),
        _matrix(cutlass.BFloat16, contiguous=0 if b_mn_major else 1),
        _matrix(cutlass.Float32, contiguous=1),
        options="--enable-tvm-ffi",
    )


def _matrix(dtype: type[cutlass.Numeric], contiguous: int):
    strides = [cute.sym_int64(divisibility=16), cute.sym_int64(divisibility=16)]
    strides[contiguous] = 1
    shape = (cute.sym_int32(), cute.sym_int32())
    return make_fake_tensor(dtype, shape, tuple(strides), assumed_align=16)
