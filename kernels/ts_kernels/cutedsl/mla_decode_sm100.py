# SPDX-License-Identifier: MIT
"""MLA decode for Blackwell (sm_100a): every KV byte comes from memory once, is key and value both.

The product is turned over: keys are the rows of the MMA tiles (M), query rows, which are query
tokens x heads of one request, their columns (N). So a tile is full however few heads a rank has.

    S^T [64 keys, N]      = K [64, 576]  Q^T [576, N]          N = 16, 32 or 64
    O^T [512 latent, N]  += V^T [512, 64]  P^T [64, N]         V is K's first 512 columns

All operands are in shared memory: K is read along its rows for S (K-major), and the same bytes
across them for O (M-major). S and O are in tensor memory: O as four quarters of 128 x N, S twice.

One CTA for an SM, six warps; a piece of work (splits.py) is a range of tiles of one (request, group
of N query rows). `=>` is who announces a barrier, and to whom:

    warp 5  load      Q of a piece; quarters of the latent [64, 128] and the ropes [64, 64] of tiles
             |            query_here, latent_here[], rope_here[]  => multiply
    warp 4  multiply  S of tile t+1, then O += V^T P of tile t
             |            query_read, latent_read[], rope_read[]  => load
             |            scores_here[2], output_here             => attend
    warps   attend    maxima, weights P; rescales O where a maximum grew; after the last tile, O out
     0 - 3   |            weights_here                            => multiply

    time ->   load      |K0|K1   |K2   |K3
              multiply     |S0|S1|  O0|S2|  O1|S3|
              attend          | P0  | | P1  | | P2

`weights_here` says that the scores have been read, too: S of a tile is multiplied after O of the
tile before the last, so its place in tensor memory is free. `output_here` says that O has the
product of the latest weights, so that these may be overwritten, O be rescaled and, after the last
tile, be stored. What a query must not see is -inf among the scores, whatever stands there; behind
the end of a context the latents of the tile are zeroed too, since 0 x NaN is NaN. Pages behind the
end are loaded from past the pool's end, where TMA reads zeros.
"""

from __future__ import annotations

import math

import cutlass
import cutlass.cute as cute
import cutlass.memory
import cutlass.utils.blackwell_helpers as blackwell
from cutlass import Float32, Int32, Uint32
from cutlass._mlir.dialects import nvvm
from cutlass.cute.nvgpu import OperandMajorMode, cpasync, tcgen05
from cutlass.cute.nvgpu import warp as warp_copies

from ts_kernels.cutedsl import softmax, splits
from ts_kernels.cutedsl.mla import rows_of_a_group
from ts_kernels.cutedsl.pages import PageReader

TILE = 64  # keys
LATENT, ROPE = 512, 64
WIDTH = LATENT + ROPE
QUARTER = 128  # columns of the latent that are loaded, multiplied and released together
QUARTERS = LATENT // QUARTER
LINE = 128  # bytes: the widest row that a swizzle takes
CHUNK = 16  # columns of O that a thread holds at a time
LOAD_WARP, MULTIPLY_WARP = 5, 4
THREADS = 192
ATTEND_BARRIER = 1  # among warps 0 to 3
SHARED_BYTES = 227 * 1024
RESERVED_BYTES = 3 * 1024  # barriers and what the attending warps exchange
LN_2 = math.log(2)


class MlaDecode:
    """heads, tokens: of a request's queries, [R, tokens, heads, 576] seen as [R, rows, 576]."""

    def __init__(
        self, heads: int, tokens: int, page_size: int, dtype: type[cutlass.Numeric]
    ) -> None:
        self.heads, self.tokens, self.page_size = heads, tokens, page_size
        self.dtype, self.bytes = dtype, dtype.width // 8  # of queries, KV and weights
        self.slab = LINE // self.bytes  # columns of a line
        self.slabs = QUARTER // self.slab  # of a quarter
        self.bits = cutlass.Uint8 if self.bytes == 1 else cutlass.Uint16
        self.range = softmax.range_of(dtype)
        self.rows = heads * tokens
        self.n = rows_of_a_group(heads, tokens)  # query rows of a CTA
        self.groups = -(-self.rows // self.n)
        self.reader = PageReader(page_size, TILE)
        self.box = min(page_size, TILE)  # keys that one copy brings
        self.ropes = 2
        fixed = self.n * (WIDTH + TILE) + self.ropes * TILE * ROPE
        free = SHARED_BYTES - RESERVED_BYTES - fixed * self.bytes
        self.latents = free // (TILE * QUARTER * self.bytes)  # at least two tiles' worth
        columns = 6 * self.n
        self.tensor_columns = 1 << (columns - 1).bit_length()

    @cute.jit
    def launch(
        self,
        mQ: cute.Tensor,
        mKV: cute.Tensor,
        mTable: cute.Tensor,
        mSlots: cute.Tensor,
        mLens: cute.Tensor,
        mOut: cute.Tensor,
        mLse: cute.Tensor,
        mPartial: cute.Tensor,
        mPartialLse: cute.Tensor,
        scale: Float32,
        out_scale: Float32,
        ctas: Int32,
        stream,
    ):
        """mQ: [R, rows, 576]; mKV: [pages, page_size, 576]; mOut: [R, rows, 512]; mLse: [R, rows].
        mPartial: [2 ctas, N, 512] and mPartialLse: [2 ctas, N] f32.
        """
        # [keys of a page, columns, pages] and [query rows, columns, requests]
        kv = cute.make_tensor(mKV.iterator, cute.select(mKV.layout, mode=[1, 2, 0]))
        q = cute.make_tensor(mQ.iterator, cute.select(mQ.layout, mode=[1, 2, 0]))
        copies = (
            self.copy_of(kv, self.box, self.slab),
            self.copy_of(kv, self.box, ROPE),
            self.copy_of(q, self.n, self.slab),
            self.copy_of(q, self.n, ROPE),
        )
        self.kernel(
            [copy for copy, _ in copies],
            [source for _, source in copies],
            mTable,
            mSlots,
            mLens,
            mOut,
            mLse,
            mPartial,
            mPartialLse,
            scale * math.log2(math.e),
            out_scale,
        ).launch(grid=[ctas, 1, 1], block=[THREADS, 1, 1], stream=stream)

    @cute.jit
    def copy_of(self, source, rows: cutlass.Constexpr, columns: cutlass.Constexpr):
        """TMA copies of boxes [rows, columns] to where the columns are lines of shared memory."""
        kinds = tcgen05.SmemLayoutAtomKind
        kind = kinds.K_SW128 if columns * self.bytes == LINE else kinds.K_SW64
        atom = tcgen05.make_smem_layout_atom(kind, self.dtype)
        box = cute.tile_to_shape(atom, (rows, columns), order=(0, 1))
        copy = cpasync.CopyBulkTensorTileG2SOp()
        return cpasync.make_tiled_tma_atom(copy, source, box, (rows, columns))

    @cute.kernel
    def kernel(
        self,
        copies: list[cute.CopyAtom],
        sources: list[cute.Tensor],
        mTable: cute.Tensor,
        mSlots: cute.Tensor,
        mLens: cute.Tensor,
        mOut: cute.Tensor,
        mLse: cute.Tensor,
        mPartial: cute.Tensor,
        mPartialLse: cute.Tensor,
        scale: Float32,
        out_scale: Float32,
    ):
        warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
        allocator = cutlass.memory.SmemAllocator()
        bars = Barriers(allocator, self.latents, self.ropes)
        columns = allocator.allocate_array(Int32, 1)
        n = self.n
        exchange = cute.make_layout(
            (n, softmax.WARPS, 2), stride=(softmax.WARPS, 1, softmax.WARPS * n)
        )
        sExchange = allocator.allocate_tensor(Float32, exchange, 16)
        sFactor = allocator.allocate_tensor(Float32, cute.make_layout(n), 16)
        sizes = (self.latents * TILE * QUARTER, self.ropes * TILE * ROPE, n * LATENT, n * ROPE)
        sLatent, sRope, sQ, sQRope, sP = [
            allocator.allocate_array(self.dtype, size, byte_alignment=1024)
            for size in (*sizes, n * TILE)
        ]

        if warp == MULTIPLY_WARP:
            initialise(bars)
            cute.arch.alloc_tmem(self.tensor_columns, columns)
        cute.arch.mbarrier_init_fence()
        cute.arch.barrier()
        cute.arch.griddepcontrol_launch_dependents()
        memory = cute.arch.retrieve_tmem_ptr(Float32, 16, columns)
        row, at, left = splits.first_piece(mLens, TILE, self.groups)

        if warp == LOAD_WARP:
            self.load(
                bars,
                (copies, sources),
                (mTable, mSlots, mLens),
                (sLatent, sRope, sQ, sQRope),
                (row, at, left),
            )
        if warp == MULTIPLY_WARP:
            self.multiply(
                bars,
                memory,
                mLens,
                (sLatent, sRope, sQ, sQRope, sP),
                (row, at, left),
            )
        if warp < softmax.WARPS:
            self.attend(
                bars,
                memory,
                mLens,
                (mOut, mLse, mPartial, mPartialLse),
                (sLatent, sP, sExchange, sFactor),
                (scale, out_scale),
                (row, at, left),
            )
        cute.arch.barrier()
        if warp == MULTIPLY_WARP:
            cute.arch.relinquish_tmem_alloc_permit()
            cute.arch.dealloc_tmem(memory, self.tensor_columns)

    # Load

    @cute.jit
    def load(self, bars, copies, arrays, shared, work):
        (load_latent, load_rope, load_q, load_q_rope), sources = copies
        mTable, mSlots, mLens = arrays
        sLatent, sRope, sQ, sQRope = shared
        row, at, left = work
        past_the_pool = sources[0].shape[2]
        boxes = TILE // self.box
        latents, ropes = self.latents * self.slabs * boxes, self.ropes * boxes
        to_latent, from_latent = self.boxes(
            load_latent, sLatent, sources[0], self.box, self.slab, latents
        )
        to_rope, from_rope = self.boxes(load_rope, sRope, sources[1], self.box, ROPE, ropes)
        to_q, from_q = self.boxes(load_q, sQ, sources[2], self.n, self.slab, QUARTERS * self.slabs)
        to_q_rope, from_q_rope = self.boxes(load_q_rope, sQRope, sources[3], self.n, ROPE, 1)
        piece, tile_count = Uint32(0), Uint32(0)
        while left > 0:
            row, group, length, begin, end = splits.piece_at(mLens, row, at, left, TILE)
            cute.arch.mbarrier_wait(bars.query_read, (piece + 1) % 2)
            with cute.arch.elect_one():
                cute.arch.mbarrier_arrive_and_expect_tx(
                    bars.query_here, self.n * WIDTH * self.bytes
                )
            for slab in cutlass.range_constexpr(LATENT // self.slab):
                cute.copy(
                    load_q,
                    from_q[None, group, slab, row],
                    to_q[None, slab],
                    tma_bar_ptr=bars.query_here,
                )
            cute.copy(
                load_q_rope,
                from_q_rope[None, group, LATENT // ROPE, row],
                to_q_rope[None, 0],
                tma_bar_ptr=bars.query_here,
            )
            slot = mSlots[row]
            columns = (length + (self.page_size - 1)) // self.page_size
            held = self.reader.read(mTable, slot, columns, self.reader.first_held(begin))
            for tile in cutlass.range(begin, end, unroll=1):
                if tile != begin and self.reader.begins_at(tile):
                    held = self.reader.read(mTable, slot, columns, self.reader.first_held(tile))
                pages = [
                    self.reader.page(held, tile, box, columns, past_the_pool)
                    for box in range(self.reader.boxes)
                ]
                part = self.reader.part(tile)
                for quarter in cutlass.range_constexpr(QUARTERS):
                    stage, turn = self.latent_stage(tile_count, quarter)
                    cute.arch.mbarrier_wait(bars.latent_read + stage, (turn + 1) % 2)
                    full = bars.latent_here + stage
                    with cute.arch.elect_one():
                        cute.arch.mbarrier_arrive_and_expect_tx(full, TILE * QUARTER * self.bytes)
                    for slab in cutlass.range_constexpr(self.slabs):
                        for box in cutlass.range_constexpr(boxes):
                            cute.copy(
                                load_latent,
                                from_latent[None, part, self.slabs * quarter + slab, pages[box]],
                                to_latent[None, (self.slabs * stage + slab) * boxes + box],
                                tma_bar_ptr=full,
                            )
                stage, turn = tile_count % self.ropes, tile_count // self.ropes
                cute.arch.mbarrier_wait(bars.rope_read + stage, (turn + 1) % 2)
                full = bars.rope_here + stage
                with cute.arch.elect_one():
                    cute.arch.mbarrier_arrive_and_expect_tx(full, TILE * ROPE * self.bytes)
                for box in cutlass.range_constexpr(boxes):
                    cute.copy(
                        load_rope,
                        from_rope[None, part, LATENT // ROPE, pages[box]],
                        to_rope[None, stage * boxes + box],
                        tma_bar_ptr=full,
                    )
                tile_count += 1
            piece += 1
            row, at, left = splits.next_piece(row, at, left, length, end - begin, TILE, self.groups)

    @cute.jit
    def boxes(
        self,
        load,
        shared,
        source,
        rows: cutlass.Constexpr,
        columns: cutlass.Constexpr,
        places: cutlass.Constexpr,
    ):
        """Places of boxes in shared memory, one behind another, and the boxes of a source."""
        layout = cute.make_layout((rows, columns, places), stride=(columns, 1, rows * columns))
        to = cute.make_tensor(self.swizzled(shared, columns, self.dtype), layout)
        sources = cute.local_tile(source, (rows, columns), (None, None, None))
        return cpasync.tma_partition(
            load,
            0,
            cute.make_layout(1),
            cute.group_modes(to, 0, 2),
            cute.group_modes(sources, 0, 2),
        )

    @cute.jit
    def swizzled(self, shared, columns: cutlass.Constexpr, dtype: cutlass.Constexpr):
        """Where lines of `columns` are, by their bytes: 16 of these stay together."""
        swizzle = cute.make_swizzle(3 if columns * self.bytes == LINE else 2, 4, 3)
        return cute.recast_ptr(shared, swizzle, dtype=dtype)

    @cute.jit
    def latent_stage(self, tile_count: Uint32, quarter: cutlass.Constexpr):
        at = QUARTERS * tile_count + quarter
        return at % self.latents, at // self.latents

    # Multiply

    @cute.jit
    def multiply(self, bars, memory, mLens, shared, work):
        score_mma, output_mma = self.score_mma(), self.output_mma()
        sLatent, sRope, sQ, sQRope, sP = shared
        row, at, left = work
        n = self.n
        rK = score_mma.make_fragment_A(
            self.operand_a(sLatent, score_mma, (TILE, n, QUARTER), self.latents)
        )
        rRope = score_mma.make_fragment_A(
            self.operand_a(sRope, score_mma, (TILE, n, ROPE), self.ropes)
        )
        rQ = score_mma.make_fragment_B(self.operand_b(sQ, score_mma, (TILE, n, LATENT)))
        rQRope = score_mma.make_fragment_B(self.operand_b(sQRope, score_mma, (TILE, n, ROPE)))
        rV = output_mma.make_fragment_A(
            self.operand_a(sLatent, output_mma, (QUARTER, n, TILE), self.latents)
        )
        rP = output_mma.make_fragment_B(self.operand_b(sP, output_mma, (QUARTER, n, TILE)))
        piece, tile_count = Uint32(0), Uint32(0)
        while left > 0:
            row, _, length, begin, end = splits.piece_at(mLens, row, at, left, TILE)
            cute.arch.mbarrier_wait(bars.query_here, piece % 2)
            for tile in cutlass.range(begin, end + 1, unroll=1):
                if tile < end:
                    self.multiply_scores(bars, memory, rK, rRope, rQ, rQRope, tile_count)
                if tile + 1 == end:
                    with cute.arch.elect_one():
                        tcgen05.commit(bars.query_read)
                if tile > begin:
                    self.multiply_output(bars, memory, rV, rP, tile_count - 1, tile - 1 > begin)
                tile_count += 1
            tile_count -= 1
            piece += 1
            row, at, left = splits.next_piece(row, at, left, length, end - begin, TILE, self.groups)

    @cute.jit
    def score_mma(self):
        k_major = OperandMajorMode.K
        return blackwell.make_trivial_tiled_mma(
            self.dtype, self.dtype, k_major, k_major, Float32, tcgen05.CtaGroup.ONE, (TILE, self.n)
        )

    @cute.jit
    def output_mma(self):
        m_major, k_major = OperandMajorMode.MN, OperandMajorMode.K
        return blackwell.make_trivial_tiled_mma(
            self.dtype,
            self.dtype,
            m_major,
            k_major,
            Float32,
            tcgen05.CtaGroup.ONE,
            (QUARTER, self.n),
        )

    @cute.jit
    def operand_a(self, shared, mma, tile: cutlass.Constexpr, stages: cutlass.Constexpr):
        layout = blackwell.make_smem_layout_a(mma, tile, self.dtype, stages)
        return cute.make_tensor(
            cute.recast_ptr(shared, layout.inner, dtype=self.dtype), layout.outer
        )

    @cute.jit
    def operand_b(self, shared, mma, tile: cutlass.Constexpr):
        layout = blackwell.make_smem_layout_b(mma, tile, self.dtype, 1)
        return cute.make_tensor(
            cute.recast_ptr(shared, layout.inner, dtype=self.dtype), layout.outer
        )

    @cute.jit
    def multiply_scores(self, bars, memory, rK, rRope, rQ, rQRope, tile_count):
        """S^T = K Q^T, of the tile that this CTA takes `tile_count`-th."""
        mma = self.score_mma()
        scores = self.scores_at(mma, memory, tile_count % 2)
        mma.set(tcgen05.Field.ACCUMULATE, False)
        steps = cute.size(rK, mode=[2])
        for quarter in cutlass.range_constexpr(QUARTERS):
            stage, turn = self.latent_stage(tile_count, quarter)
            cute.arch.mbarrier_wait(bars.latent_here + stage, turn % 2)
            for k in cutlass.range_constexpr(steps):
                at_q = (None, None, quarter * steps + k, 0)
                cute.gemm(mma, scores, rK[None, None, k, stage], rQ[at_q], scores)
                mma.set(tcgen05.Field.ACCUMULATE, True)
        stage, turn = tile_count % self.ropes, tile_count // self.ropes
        cute.arch.mbarrier_wait(bars.rope_here + stage, turn % 2)
        for k in cutlass.range_constexpr(cute.size(rRope, mode=[2])):
            cute.gemm(mma, scores, rRope[None, None, k, stage], rQRope[None, None, k, 0], scores)
        with cute.arch.elect_one():
            tcgen05.commit(bars.rope_read + stage)
            tcgen05.commit(bars.scores_here + tile_count % 2)

    @cute.jit
    def multiply_output(self, bars, memory, rV, rP, tile_count, accumulate):
        """O^T += V^T P^T, quarter by quarter, which are free then."""
        cute.arch.mbarrier_wait(bars.weights_here, tile_count % 2)
        tcgen05_fence_after()
        for quarter in cutlass.range_constexpr(QUARTERS):
            mma = self.output_mma()
            output = self.output_at(mma, memory, quarter)
            stage, _ = self.latent_stage(tile_count, quarter)
            mma.set(tcgen05.Field.ACCUMULATE, accumulate)
            for k in cutlass.range_constexpr(cute.size(rV, mode=[2])):
                cute.gemm(mma, output, rV[None, None, k, stage], rP[None, None, k, 0], output)
                mma.set(tcgen05.Field.ACCUMULATE, True)
            with cute.arch.elect_one():
                tcgen05.commit(bars.latent_read + stage)
        with cute.arch.elect_one():
            tcgen05.commit(bars.output_here)

    @cute.jit
    def output_at(self, mma, memory, quarter: cutlass.Constexpr):
        layout = mma.make_fragment_C(mma.partition_shape_C((QUARTER, self.n))).layout
        return cute.make_tensor(memory + quarter * self.n, layout)

    @cute.jit
    def scores_at(self, mma, memory, stage: Uint32):
        layout = mma.make_fragment_C(mma.partition_shape_C((TILE, self.n))).layout
        column = cute.assume(Int32((QUARTERS + stage) * self.n), divby=16)
        return cute.make_tensor(memory + column, layout)

    # Attend

    @cute.jit
    def attend(self, bars, memory, mLens, results, shared, scales, work):
        sLatent, sP, sExchange, sFactor = shared
        scale, _ = scales
        row, at, left = work
        lane = cute.arch.lane_idx()
        warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
        own = softmax.rows_of(self.n)
        top, total = cute.make_rmem_tensor(own, Float32), cute.make_rmem_tensor(own, Float32)
        visible = cute.make_rmem_tensor(own, Int32)
        tile_count = Uint32(0)
        while left > 0:
            row, group, length, begin, end = splits.piece_at(mLens, row, at, left, TILE)
            top.fill(-Float32.inf)
            total.fill(0.0)
            for i in cutlass.range_constexpr(own):
                token = (group * self.n + softmax.row_at(i, lane)) // self.heads
                visible[i] = cutlass.min(length, length - self.tokens + 1 + token)
            for tile in cutlass.range(begin, end, unroll=1):
                scores = self.take_scores(bars, memory, tile_count, lane)
                if (tile + 1) * TILE > length - self.tokens + 1:
                    softmax.mask_scores(scores, visible, tile * TILE, lane, warp)
                self.attend_to_tile(
                    bars,
                    memory,
                    scores,
                    (top, total),
                    (sP, sExchange, sFactor),
                    scale,
                    tile_count,
                    tile > begin,
                )
                if (tile + 1) * TILE > length:
                    self.zero_behind(bars, sLatent, length - tile * TILE, tile_count)
                cute.arch.fence_proxy("async.shared", space="cta")
                tcgen05_fence_before()
                cute.arch.mbarrier_arrive(bars.weights_here)
                tile_count += 1
            self.finish(
                bars,
                memory,
                (top, total),
                (sExchange, sFactor),
                results,
                scales,
                tile_count,
                (row, group, begin, end == splits.tiles_of(length, TILE)),
            )
            row, at, left = splits.next_piece(row, at, left, length, end - begin, TILE, self.groups)

    @cute.jit
    def take_scores(self, bars, memory, tile_count, lane):
        cute.arch.mbarrier_wait(bars.scores_here + tile_count % 2, tile_count // 2 % 2)
        tcgen05_fence_after()
        tile = self.scores_at(self.score_mma(), memory, tile_count % 2)[(None, None), 0, 0]
        atom = cute.make_copy_atom(tcgen05.Ld16x256bOp(tcgen05.Repetition(self.n // 8)), Float32)
        load = tcgen05.make_tmem_copy(atom, tile)
        thread, _, _ = cute.arch.thread_idx()
        part = load.get_slice(thread)
        source = part.partition_S(tile)
        shape = part.partition_D(cute.make_identity_tensor(tile.shape)).shape
        scores = cute.make_rmem_tensor(shape, Float32)
        cute.copy(load, source, scores)
        cute.arch.fence_view_async_tmem_load()
        return cute.make_tensor(scores.iterator, cute.make_layout(softmax.values_of(self.n)))

    @cute.jit
    def attend_to_tile(self, bars, memory, scores, state, shared, scale, tile_count, has_output):
        """Scores to weights in shared memory; O is rescaled where it must be."""
        top, total = state
        sP, sExchange, sFactor = shared
        lane = cute.arch.lane_idx()
        warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
        maximum = cute.make_rmem_tensor(softmax.rows_of(self.n), Float32)
        softmax.tile_maximum(scores, maximum)
        # Two exchanges in turn: one barrier lies between the reads of one and its next writes.
        exchange = sExchange[None, None, tile_count % 2]
        softmax.share(maximum, exchange, lane, warp)
        self.meet()
        softmax.collect_maximum(maximum, exchange, lane)
        grown = softmax.has_grown(top, maximum, scale, self.range)
        if grown:
            factor = cute.make_rmem_tensor(softmax.rows_of(self.n), Float32)
            softmax.raise_tops(top, total, maximum, factor, scale)
            if warp == 0 and lane < 4:
                for i in cutlass.range_constexpr(softmax.rows_of(self.n)):
                    sFactor[softmax.row_at(i, lane)] = factor[i]
            self.meet()
        softmax.weigh(scores, top, total, scale, self.range)
        cute.arch.mbarrier_wait(bars.output_here, (tile_count + 1) % 2)
        tcgen05_fence_after()
        if grown and has_output:
            self.rescale(memory, sFactor)
        self.store_weights(scores, sP, lane, warp)

    @cute.jit
    def meet(self):
        cute.arch.barrier(barrier_id=ATTEND_BARRIER, number_of_threads=softmax.THREADS)

    @cute.jit
    def store_weights(self, weights, sP, lane, warp):
        """P^T, as the MMA takes it: the 64 keys of a query row are a line."""
        rounded = cute.make_rmem_tensor(cute.size(weights), self.dtype)
        rounded.store(weights.load().to(self.dtype))
        layout = cute.make_layout((self.n, TILE), stride=(TILE, 1))
        if cutlass.const_expr(self.bytes == 2):
            # Of 16 query rows, four matrices of 8 x 8, transposed. A lane says where 8 keys go.
            p = cute.make_tensor(self.swizzled(sP, TILE, self.dtype), layout)
            atom = cute.make_copy_atom(warp_copies.StMatrix8x8x16bOp(True, 4), self.dtype)
            for j in cutlass.range_constexpr(self.n // 16):
                query, keys = 16 * j + lane // 16 * 8 + lane % 8, 2 * warp + lane // 8 % 2
                to = cute.local_tile(p[query, None], (8,), (keys,))
                cute.copy(atom, cute.local_tile(rounded, (8,), (j,)), to)
        else:
            bits = cute.recast_tensor(rounded, self.bits)
            p = cute.make_tensor(self.swizzled(sP, TILE, self.bits), layout)
            for v in cutlass.range_constexpr(cute.size(weights)):
                i = 2 * (v // 4) + v % 2
                p[softmax.row_at(i, lane), softmax.key_at(v // 2 % 2, lane, warp)] = bits[v]

    @cute.jit
    def zero_behind(self, bars, sLatent, keys, tile_count):
        """Latents of the tile's keys from `keys` on become 0: what was there may be NaN."""
        thread, _, _ = cute.arch.thread_idx()
        shape = (self.slab, TILE, self.slabs * self.latents)
        lines = cute.make_layout(shape, stride=(1, self.slab, self.slab * TILE))
        latent = cute.make_tensor(self.swizzled(sLatent, self.slab, self.bits), lines)
        for quarter in cutlass.range_constexpr(QUARTERS):
            stage, turn = self.latent_stage(tile_count, quarter)
            cute.arch.mbarrier_wait(bars.latent_here + stage, turn % 2)
            column, slab = thread % self.slab, thread // self.slab
            for key in cutlass.range(keys, TILE, unroll=1):
                latent[column, key, self.slabs * stage + slab] = self.bits(0)

    @cute.jit
    def rescale(self, memory, sFactor):
        thread, _, _ = cute.arch.thread_idx()
        for chunk in cutlass.range(QUARTERS * self.n // CHUNK, unroll=1):
            tile, load, part, values = self.output_part(memory, chunk, thread)
            cute.copy(load, part.partition_S(tile), values)
            cute.arch.fence_view_async_tmem_load()
            factors = self.factors_of(sFactor, chunk)
            for i in cutlass.range_constexpr(CHUNK):
                values[i] = values[i] * factors[i]
            atom = cute.make_copy_atom(tcgen05.St32x32bOp(tcgen05.Repetition(CHUNK)), Float32)
            store = tcgen05.make_tmem_copy(atom, tile)
            cute.copy(store, values, store.get_slice(thread).partition_D(tile))
        cute.arch.fence_view_async_tmem_store()

    @cute.jit
    def output_part(self, memory, chunk, thread):
        """A chunk of O's columns: a thread has one row (lane) of them."""
        layout = cute.make_layout((QUARTER, CHUNK), stride=(1 << 16, 1))
        tile = cute.make_tensor(memory + cute.assume(CHUNK * chunk, divby=CHUNK), layout)
        atom = cute.make_copy_atom(tcgen05.Ld32x32bOp(tcgen05.Repetition(CHUNK)), Float32)
        load = tcgen05.make_tmem_copy(atom, tile)
        part = load.get_slice(thread)
        shape = part.partition_D(cute.make_identity_tensor(tile.shape)).shape
        return tile, load, part, cute.make_rmem_tensor(shape, Float32)

    @cute.jit
    def factors_of(self, sFactor, chunk):
        """One for each column of a chunk of O."""
        factors = cute.make_rmem_tensor(CHUNK, Float32)
        own = cute.local_tile(sFactor, (CHUNK,), (chunk % (self.n // CHUNK),))
        cute.autovec_copy(own, factors)
        return factors

    @cute.jit
    def finish(self, bars, memory, state, shared, results, scales, tile_count, piece):
        """O over the sum of weights, and the log-sum-exp: to the results if this CTA had the whole
        context, else to where the merge finds them.
        """
        top, total = state
        sExchange, sFactor = shared
        mOut, mLse, mPartial, mPartialLse = results
        scale, out_scale = scales
        row, group, begin, ends = piece
        thread, _, _ = cute.arch.thread_idx()
        lane = cute.arch.lane_idx()
        warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
        cta, _, _ = cute.arch.block_idx()
        place = splits.place_of(cta, begin == 0)
        whole = begin == 0 and ends

        softmax.over_keys(total, False)
        self.meet()  # the last tile's exchange has been read
        exchange, sTop = sExchange[None, None, 0], sExchange[None, 0, 1]
        softmax.share(total, exchange, lane, warp)
        if warp == 0 and lane < 4:
            for i in cutlass.range_constexpr(cute.size(top)):
                sTop[softmax.row_at(i, lane)] = top[i]
        self.meet()
        if thread < self.n:
            sum_ = Float32(0.0)
            for w in cutlass.range_constexpr(softmax.WARPS):
                sum_ += exchange[thread, w]
            inverse, lse = Float32(0.0), -Float32.inf
            if sum_ > 0.0:
                inverse = out_scale / sum_
                sum_log = cute.math.log2(sum_, fastmath=True) - self.range.offset
                lse = sTop[thread] * scale + sum_log
            sFactor[thread] = inverse
            query = group * self.n + thread
            if not whole:
                mPartialLse[place, thread] = lse
            if whole and query < self.rows:
                mLse[row, query] = lse * LN_2
        self.meet()
        cute.arch.mbarrier_wait(bars.output_here, (tile_count + 1) % 2)
        tcgen05_fence_after()
        for chunk in cutlass.range(QUARTERS * self.n // CHUNK, unroll=1):
            tile, load, part, values = self.output_part(memory, chunk, thread)
            cute.copy(load, part.partition_S(tile), values)
            cute.arch.fence_view_async_tmem_load()
            factors = self.factors_of(sFactor, chunk)
            column = QUARTER * (chunk // (self.n // CHUNK)) + thread
            n = chunk % (self.n // CHUNK) * CHUNK
            if whole:
                for i in cutlass.range_constexpr(CHUNK):
                    query = group * self.n + n + i
                    if query < self.rows:
                        mOut[row, query, column] = mOut.element_type(values[i] * factors[i])
            else:
                for i in cutlass.range_constexpr(CHUNK):
                    mPartial[place, n + i, column] = values[i] * factors[i]
        tcgen05_fence_before()


class Barriers:
    """mbarriers, named for what they announce."""

    def __init__(self, allocator, latents: int, ropes: int) -> None:
        def bars(count: int):
            return allocator.allocate_array(cutlass.Int64, count)

        self.query_here, self.query_read = bars(1), bars(1)
        self.latent_here, self.latent_read = bars(latents), bars(latents)
        self.rope_here, self.rope_read = bars(ropes), bars(ropes)
        self.scores_here, self.weights_here, self.output_here = bars(2), bars(1), bars(1)
        one, all_ = 1, softmax.THREADS
        self.arrivals = [
            (self.query_here, 1, one),
            (self.query_read, 1, one),
            (self.latent_here, latents, one),
            (self.latent_read, latents, one),
            (self.rope_here, ropes, one),
            (self.rope_read, ropes, one),
            (self.scores_here, 2, one),
            (self.weights_here, 1, all_),
            (self.output_here, 1, one),
        ]


@cute.jit
def initialise(bars):
    with cute.arch.elect_one():
        for bar, count, arrivals in bars.arrivals:
            for i in cutlass.range_constexpr(count):
                cute.arch.mbarrier_init(bar + i, arrivals)


def tcgen05_fence_before() -> None:
    """What this thread did to tensor memory comes before what the next barrier lets others do."""
    nvvm.tcgen05_fence(nvvm.Tcgen05FenceKind.BEFORE_THREAD_SYNC)


def tcgen05_fence_after() -> None:
    """What this thread does to tensor memory comes after what the last barrier told."""
    nvvm.tcgen05_fence(nvvm.Tcgen05FenceKind.AFTER_THREAD_SYNC)
