# SPDX-License-Identifier: MIT
"""Merges what several CTAs found out about parts of one context (Flash-Decoding).

With o_i the softmax-weighted mean of the values of part i, and s_i the log-sum-exp of its scores:

    s = log sum_i exp(s_i)        o = sum_i exp(s_i - s) o_i

A part in which a query sees nothing has s_i = -inf, and weight 0. One CTA merges a quarter of the
latent columns of one query row: its warps share the parts out among them. A context that a single
CTA had whole is none of its business; of an empty one it writes zeros and -inf.
"""

from __future__ import annotations

import math

import cutlass
import cutlass.cute as cute
import cutlass.memory
from cutlass import Float32, Int32

from ts_kernels.cutedsl import splits

WARPS = 4
COLUMNS = 128  # of a CTA: four for each lane
QUARTERS = 4
LN_2 = math.log(2)


class Merge:
    """rows: query rows of a request. group_rows: those that a CTA attends to at a time.

    mPartial: [places, group_rows, 512] f32 and mPartialLse: [places, group_rows] f32, base 2.
    mOut: [R, rows, 512], mLse: [R, rows] f32, base e.
    """

    def __init__(self, rows: int, group_rows: int, tile: int) -> None:
        self.rows, self.group_rows, self.tile = rows, group_rows, tile
        self.groups = -(-rows // group_rows)

    @cute.jit
    def launch(
        self,
        mLens: cute.Tensor,
        mPartial: cute.Tensor,
        mPartialLse: cute.Tensor,
        mOut: cute.Tensor,
        mLse: cute.Tensor,
        ctas: Int32,
        stream,
    ):
        self.kernel(mLens, mPartial, mPartialLse, mOut, mLse, ctas).launch(
            grid=[self.rows, QUARTERS, mLens.shape[0]],
            block=[32 * WARPS, 1, 1],
            stream=stream,
            use_pdl=True,
        )

    @cute.kernel
    def kernel(
        self,
        mLens: cute.Tensor,
        mPartial: cute.Tensor,
        mPartialLse: cute.Tensor,
        mOut: cute.Tensor,
        mLse: cute.Tensor,
        ctas: Int32,
    ):
        query, quarter, row = cute.arch.block_idx()
        thread, _, _ = cute.arch.thread_idx()
        allocator = cutlass.memory.SmemAllocator()
        sums = cute.make_layout((COLUMNS, WARPS), stride=(1, COLUMNS))
        sSum = allocator.allocate_tensor(Float32, sums, 16)

        tiles = splits.tiles_of(mLens[row], self.tile)
        before = splits.tiles_before(mLens, row, self.tile, self.groups)
        total = splits.tiles_before(mLens, mLens.shape[0], self.tile, self.groups)
        each = splits.tiles_each(total, ctas)
        group = query // self.group_rows
        begin = before + group * tiles
        # All wait, also who needs nothing: what runs after this kernel relies on the one before it.
        cute.arch.griddepcontrol_wait()
        if tiles == 0:
            mOut[row, query, quarter * COLUMNS + thread] = mOut.element_type(0.0)
            if quarter == 0 and thread == 0:
                mLse[row, query] = -Float32.inf
        else:
            first = splits.quotient(begin, each)
            last = splits.quotient(begin + tiles - 1, each)
            if first < last:
                self.merge(mPartial, mPartialLse, mOut, mLse, sSum, first, last)

    @cute.jit
    def merge(
        self,
        mPartial: cute.Tensor,
        mPartialLse: cute.Tensor,
        mOut: cute.Tensor,
        mLse: cute.Tensor,
        sSum: cute.Tensor,
        first: Int32,
        last: Int32,
    ):
        query, quarter, row = cute.arch.block_idx()
        thread, _, _ = cute.arch.thread_idx()
        lane, warp = cute.arch.lane_idx(), cute.arch.make_warp_uniform(cute.arch.warp_idx())
        q = query % self.group_rows

        top = -Float32.inf
        for cta in cutlass.range(first + lane, last + 1, splits.LANES, unroll=1):
            top = cute.arch.fmax(top, mPartialLse[splits.place_of(cta, cta == first), q])
        top = cute.arch.warp_redux_sync(top, "fmax")
        if top == -Float32.inf:  # this query sees nothing: all weights are to be 0
            top = Float32(0.0)

        weights = Float32(0.0)
        for cta in cutlass.range(first + lane, last + 1, splits.LANES, unroll=1):
            lse = mPartialLse[splits.place_of(cta, cta == first), q]
            weights += cute.math.exp2(lse - top, fastmath=True)
        weights = cute.arch.warp_reduction_sum(weights)
        sums = cute.make_rmem_tensor(4, Float32)
        sums.fill(0.0)
        # Loads of several parts are under way at a time.
        for cta in cutlass.range(first + warp, last + 1, WARPS, unroll=4):
            place = splits.place_of(cta, cta == first)
            weight = cute.math.exp2(mPartialLse[place, q] - top, fastmath=True)
            part = cute.local_tile(mPartial[place, q, None], (4,), (32 * quarter + lane,))
            values = cute.make_rmem_tensor(4, Float32)
            cute.autovec_copy(part, values)
            for i in cutlass.range_constexpr(4):
                sums[i] += weight * values[i]
        for i in cutlass.range_constexpr(4):
            sSum[4 * lane + i, warp] = sums[i]
        cute.arch.barrier()
        total = Float32(0.0)
        for w in cutlass.range_constexpr(WARPS):
            total += sSum[thread, w]
        scale = Float32(0.0)
        lse = -Float32.inf
        if weights > 0.0:
            scale = 1.0 / weights
            lse = (top + cute.math.log2(weights, fastmath=True)) * LN_2
        mOut[row, query, quarter * COLUMNS + thread] = mOut.element_type(total * scale)
        if quarter == 0 and thread == 0:
            mLse[row, query] = lse
