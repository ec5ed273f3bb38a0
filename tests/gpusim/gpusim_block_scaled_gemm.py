# SPDX-License-Identifier: MIT
"""A small block-scaled GEMM for Blackwell: TMA brings tiles and scale factors, tcgen05.cp these on
to tensor memory, one thread multiplies (tcgen05.mma).

C[m, n] = sum over k of A[m, k] SFA[m, k / block] B[n, k] SFB[n, k / block]
"""

from __future__ import annotations

import cutlass
import cutlass.cute as cute
import cutlass.memory
import cutlass.utils.blackwell_helpers as blackwell
import cutlass.utils.blockscaled_layout as blockscaled
from cutlass.cute.nvgpu import OperandMajorMode, cpasync, tcgen05
from cutlass.cute.runtime import make_fake_tensor

M_TILE = 128
THREADS = 128
COLUMNS = 512  # of tensor memory: the accumulator from 0 on, then the scale factors
A_SCALES, B_SCALES = 256, 320


class Gemm:
    """mA: [M, K], mB: [N, K] bytes of `dtype` (4-bit ones two in a byte); mSFA, mSFB: bytes of
    `scale_dtype` in the order of blockscaled.tile_atom_to_shape_SF; mC: [M, N] float.

    `block`: elements along K that share a scale factor.
    """

    def __init__(
        self,
        dtype: type[cutlass.Numeric],
        scale_dtype: type[cutlass.Numeric],
        block: int,
        n_tile: int,
    ) -> None:
        self.dtype, self.scale_dtype, self.block = dtype, scale_dtype, block
        k_tile = 4 * 256 // dtype.width
        self.tile = (M_TILE, n_tile, k_tile)

    @cute.jit
    def __call__(
        self,
        mA: cute.Tensor,
        mB: cute.Tensor,
        mSFA: cute.Tensor,
        mSFB: cute.Tensor,
        mC: cute.Tensor,
    ):
        mma = blackwell.make_blockscaled_trivial_tiled_mma(
            self.dtype,
            self.dtype,
            OperandMajorMode.K,
            OperandMajorMode.K,
            self.scale_dtype,
            self.block,
            tcgen05.CtaGroup.ONE,
            self.tile[:2],
        )
        mA, mB = self.elements(mA), self.elements(mB)
        mSFA, mSFB = self.scales(mSFA, mA.shape), self.scales(mSFB, mB.shape)
        layouts = (
            blackwell.make_smem_layout_a(mma, self.tile, self.dtype, 1),
            blackwell.make_smem_layout_b(mma, self.tile, self.dtype, 1),
            blockscaled.make_smem_layout_sfa(mma, self.tile, self.block, 1),
            blockscaled.make_smem_layout_sfb(mma, self.tile, self.block, 1),
        )
        stage = [cute.slice_(layout, (None, None, None, 0)) for layout in layouts]
        cluster = cute.tiled_divide(cute.make_layout((1, 1, 1)), (mma.thr_id.shape,)).shape
        load = cpasync.CopyBulkTensorTileG2SOp()
        atom_a, tma_a = cute.nvgpu.make_tiled_tma_atom_A(
            load, mA, stage[0], self.tile, mma, cluster
        )
        atom_b, tma_b = cute.nvgpu.make_tiled_tma_atom_B(
            load, mB, stage[1], self.tile, mma, cluster
        )
        atom_sfa, tma_sfa = cute.nvgpu.make_tiled_tma_atom_A(
            load, mSFA, stage[2], self.tile, mma, cluster, internal_type=cutlass.Int16
        )
        atom_sfb, tma_sfb = cute.nvgpu.make_tiled_tma_atom_B(
            load, mSFB, stage[3], self.tile, mma, cluster, internal_type=cutlass.Int16
        )
        grid = [cute.ceil_div(mC.shape[0], M_TILE), cute.ceil_div(mC.shape[1], self.tile[1]), 1]
        self.kernel(
            mma,
            (atom_a, atom_b, atom_sfa, atom_sfb),
            (tma_a, tma_b, tma_sfa, tma_sfb),
            mC,
            layouts,
        ).launch(grid=grid, block=[THREADS, 1, 1])

    @cute.jit
    def elements(self, tensor: cute.Tensor):
        rows, ks = tensor.shape[0], tensor.shape[1] * (8 // self.dtype.width)
        pointer = cute.recast_ptr(tensor.iterator, dtype=self.dtype)
        return cute.make_tensor(pointer, cute.make_layout((rows, ks, 1), stride=(ks, 1, rows * ks)))

    @cute.jit
    def scales(self, tensor: cute.Tensor, shape: cute.Shape):
        pointer = cute.recast_ptr(tensor.iterator, dtype=self.scale_dtype)
        return cute.make_tensor(pointer, blockscaled.tile_atom_to_shape_SF(shape, self.block))

    @cute.kernel
    def kernel(self, mma: cute.TiledMma, atoms, tensors, mC: cute.Tensor, layouts):
        thread, _, _ = cute.arch.thread_idx()
        block_m, block_n, _ = cute.arch.block_idx()
        warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
        types = (self.dtype, self.dtype, self.scale_dtype, self.scale_dtype)

        allocator = cutlass.memory.SmemAllocator()
        barriers = allocator.allocate_array(cutlass.Int64, 2)
        tiles_here, multiplied = barriers, barriers + 1
        columns = allocator.allocate_array(cutlass.Int32, 1)
        shared = []
        for layout, type_ in zip(layouts, types, strict=True):
            if cutlass.const_expr(isinstance(layout, cute.ComposedLayout)):
                tile = allocator.allocate_tensor(type_, layout.outer, 1024, swizzle=layout.inner)
            else:
                tile = allocator.allocate_tensor(type_, layout, 1024)
            shared.append(tile)
        if warp == 0:
            with cute.arch.elect_one():
                cute.arch.mbarrier_init(tiles_here, 1)
                cute.arch.mbarrier_init(multiplied, 1)
            cute.arch.alloc_tmem(COLUMNS, columns)
        cute.arch.mbarrier_init_fence()
        cute.arch.barrier()
        memory = cute.arch.retrieve_tmem_ptr(cutlass.Float32, 16, columns)

        group = mma.get_slice(0)
        coordinates = ((block_m, None), (block_n, None), (block_m, None), (block_n, None))
        tilers = ((self.tile[0], self.tile[2]), (self.tile[1], self.tile[2])) * 2
        sources, tiles = [], []
        for i in cutlass.range_constexpr(4):
            own = cute.local_tile(tensors[i], tilers[i], (*coordinates[i], 0))
            partition = group.partition_A(own) if i % 2 == 0 else group.partition_B(own)
            tile, source = cpasync.tma_partition(
                atoms[i],
                0,
                cute.make_layout(1),
                cute.group_modes(shared[i], 0, 3),
                cute.group_modes(partition, 0, 3),
            )
            sources.append(cute.filter_zeros(source))
            tiles.append(cute.filter_zeros(tile))
        rA = mma.make_fragment_A(shared[0])
        rB = mma.make_fragment_B(shared[1])
        accumulator = cute.make_tensor(
            memory, mma.make_fragment_C(mma.partition_shape_C(self.tile[:2])).layout
        )
        tSFA = cute.make_tensor(
            cute.recast_ptr(memory + A_SCALES, dtype=self.scale_dtype),
            blockscaled.make_tmem_layout_sfa(
                mma, self.tile, self.block, cute.slice_(layouts[2], (None, None, None, 0))
            ),
        )
        tSFB = cute.make_tensor(
            cute.recast_ptr(memory + B_SCALES, dtype=self.scale_dtype),
            blockscaled.make_tmem_layout_sfb(
                mma, self.tile, self.block, cute.slice_(layouts[3], (None, None, None, 0))
            ),
        )
        to_sfa = self.to_tensor_memory(shared[2], tSFA)
        to_sfb = self.to_tensor_memory(shared[3], tSFB)
        size = sum(
            cute.size_in_bytes(type_, cute.slice_(layout, (None, None, None, 0)))
            for layout, type_ in zip(layouts, types, strict=True)
        )

        mma.set(tcgen05.Field.ACCUMULATE, False)
        for k_tile in cutlass.range(cute.size(sources[0], mode=[1]), unroll=1):
            if warp == 0:
                with cute.arch.elect_one():
                    cute.arch.mbarrier_arrive_and_expect_tx(tiles_here, size)
                for i in cutlass.range_constexpr(4):
                    cute.copy(
                        atoms[i],
                        sources[i][None, k_tile],
                        tiles[i][None, 0],
                        tma_bar_ptr=tiles_here,
                    )
                cute.arch.mbarrier_wait(tiles_here, k_tile % 2)
                cute.copy(*to_sfa)
                cute.copy(*to_sfb)
                for k_block in cutlass.range_constexpr(cute.size(rA, mode=[2])):
                    mma.set(tcgen05.Field.SFA, tSFA[None, None, k_block].iterator)
                    mma.set(tcgen05.Field.SFB, tSFB[None, None, k_block].iterator)
                    at = (None, None, k_block, 0)
                    cute.gemm(mma, accumulator, rA[at], rB[at], accumulator)
                    mma.set(tcgen05.Field.ACCUMULATE, True)
                with cute.arch.elect_one():
                    tcgen05.commit(multiplied)
            cute.arch.mbarrier_wait(multiplied, k_tile % 2)
            cute.arch.barrier()  # all have seen this phase before the next one ends
        self.store(accumulator, cute.local_tile(mC, self.tile[:2], (block_m, block_n)), thread)
        cute.arch.barrier()
        if warp == 0:
            cute.arch.dealloc_tmem(memory, COLUMNS)

    @cute.jit
    def to_tensor_memory(self, source: cute.Tensor, to: cute.Tensor):
        source, to = cute.filter_zeros(source), cute.filter_zeros(to)
        atom = cute.make_copy_atom(tcgen05.Cp4x32x128bOp(tcgen05.CtaGroup.ONE), self.scale_dtype)
        copy = tcgen05.make_s2t_copy(atom, to)
        part = copy.get_slice(0)
        descriptors = tcgen05.get_s2t_smem_desc_tensor(copy, part.partition_S(source))
        return copy, descriptors[None, None, None, None, 0], part.partition_D(to)

    @cute.jit
    def store(self, accumulator: cute.Tensor, gC: cute.Tensor, thread: cutlass.Int32):
        """A thread has a row of the tile."""
        tile = accumulator[(None, None), 0, 0]
        atom = cute.make_copy_atom(tcgen05.Ld32x32bOp(tcgen05.Repetition(32)), cutlass.Float32)
        load = tcgen05.make_tmem_copy(atom, tile)
        part = load.get_slice(thread)
        source, to = part.partition_S(tile), part.partition_D(gC)
        values = cute.make_rmem_tensor(to.shape, cutlass.Float32)
        cute.copy(load, source, values)
        cute.arch.fence_view_async_tmem_load()
        cute.autovec_copy(values, to)


def compiled(
    dtype: type[cutlass.Numeric], scale_dtype: type[cutlass.Numeric], block: int, n_tile: int
):
    """A function of five host tensors, whatever their sizes (multiples of a tile)."""
    return cute.compile(
        Gemm(dtype, scale_dtype, block, n_tile),
        _matrix(cutlass.Uint8),
        _matrix(cutlass.Uint8),
        _scales(),
        _scales(),
        _matrix(cutlass.Float32),
        options="--enable-tvm-ffi",
    )


def _matrix(dtype: type[cutlass.Numeric]):
    shape = (cute.sym_int32(), cute.sym_int32(divisibility=16))
    strides = (cute.sym_int64(divisibility=16), 1)
    return make_fake_tensor(dtype, shape, strides, assumed_align=16)


def _scales():
    return make_fake_tensor(cutlass.Uint8, (cute.sym_int32(),), (1,), assumed_align=16)
