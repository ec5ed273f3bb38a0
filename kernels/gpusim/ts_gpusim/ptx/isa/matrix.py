# SPDX-License-Identifier: MIT
"""Matrix instructions of a warp and of a warp group (PTX ISA 9.7.14 and 9.7.15)."""

from __future__ import annotations

from collections.abc import Iterable


def _wgmma_shapes(k: int, columns: Iterable[int]) -> str:
    return " ".join(f"m64n{n}k{k}" for n in columns)


# The integer and single-bit shapes step by 16 columns above 32 (PTX ISA 9.7.15.2).
_WIDE = [8, 16, 24, *range(32, 257, 16)]

TABLE = f"""
9.7.14.5.14 Warp-level Matrix Multiply-Accumulate Instructions: mma
.arow = row col
.brow = row col
.half = f16 f32
.hshape = m16n8k8 m16n8k16
.fp8_shape = m16n8k16 m16n8k32
.fp8 = e4m3 e5m2
.bfp8 = e4m3 e5m2
.narrow = e4m3 e5m2 e3m2 e2m3 e2m1
.bnarrow = e4m3 e5m2 e3m2 e2m3 e2m1
.dshape = m8n8k4 m16n8k4 m16n8k8 m16n8k16
.ishape = m8n8k16 m16n8k16 m16n8k32
.int8 = u8 s8
.bint8 = u8 s8
.i4shape = m8n8k32 m16n8k32 m16n8k64
.int4 = u4 s4
.bint4 = u4 s4
.b1shape = m8n8k128 m16n8k128 m16n8k256
.bit = xor and
.vec4 = scale_vec::2X scale_vec::4X
.mxf8 = kind::mxf8f6f4.block_scale
.mxf4 = f32.e2m1.e2m1.f32.ue8m0
.nvf4 = f32.e2m1.e2m1.f32.ue8m0 f32.e2m1.e2m1.f32.ue4m3
mma.sync.aligned.m8n8k4.arow.brow.half.f16.f16.f16                d, a, b, c
mma.sync.aligned.m8n8k4.arow.brow.f32.f16.f16.f32                 d, a, b, c
mma.sync.aligned.hshape.row.col.f16.f16.f16.f16                 d, a, b, c
mma.sync.aligned.hshape.row.col.f32.f16.f16.f32                 d, a, b, c
mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32              d, a, b, c
mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32              d, a, b, c
mma.sync.aligned.hshape.row.col.f32.bf16.bf16.f32               d, a, b, c
mma.sync.aligned.fp8_shape.row.col.f16.fp8.bfp8.f16             d, a, b, c
mma.sync.aligned.fp8_shape.row.col.f32.fp8.bfp8.f32             d, a, b, c
mma.sync.aligned.m16n8k32.row.col.kind::f8f6f4.f16.narrow.bnarrow.f16 d, a, b, c
mma.sync.aligned.m16n8k32.row.col.kind::f8f6f4.f32.narrow.bnarrow.f32 d, a, b, c
mma.sync.aligned.m16n8k64.row.col.kind::mxf4.block_scale{{.scale_vec::2X}}.mxf4 \
    d, a, b, c, scaleA, idA, scaleB, idB
mma.sync.aligned.m16n8k64.row.col.kind::mxf4nvf4.block_scale.vec4.nvf4 \
    d, a, b, c, scaleA, idA, scaleB, idB
mma.sync.aligned.m16n8k32.row.col.mxf8{{.scale_vec::1X}}.f32.narrow.bnarrow.f32.ue8m0 \
    d, a, b, c, scaleA, idA, scaleB, idB
mma.sync.aligned.dshape.row.col.f64.f64.f64.f64                 d, a, b, c
mma.sync.aligned.ishape.row.col{{.satfinite}}.s32.int8.bint8.s32  d, a, b, c
mma.sync.aligned.i4shape.row.col{{.satfinite}}.s32.int4.bint4.s32 d, a, b, c
mma.sync.aligned.b1shape.row.col.s32.b1.b1.s32.bit.popc         d, a, b, c

9.7.14.5.15 Warp-level matrix load instruction: ldmatrix
.num = x1 x2 x4
.num2 = x1 x2
.smem = shared shared::cta
.source = b6x16_p32 b4x16_p64
ldmatrix.sync.aligned.m8n8.num{{.trans}}{{.smem}}.b16                   r, [p]
ldmatrix.sync.aligned.m8n16.num{{.smem}}.b8x16.source                 r, [p]
ldmatrix.sync.aligned.m16n16.num2.trans{{.smem}}.b8                   r, [p]
ldmatrix.sync.aligned.m16n16.num2.trans{{.smem}}.b8x16.source         r, [p]

9.7.14.5.16 Warp-level matrix store instruction: stmatrix
.num = x1 x2 x4
.smem = shared shared::cta
stmatrix.sync.aligned.m8n8.num{{.trans}}{{.smem}}.b16                   [p], r
stmatrix.sync.aligned.m16n8.num.trans{{.smem}}.b8                     [p], r

9.7.14.5.17 Warp-level matrix transpose instruction: movmatrix
movmatrix.sync.aligned.m8n8.trans.b16                               d, a

9.7.14.6.3 Warp-level Matrix Multiply-Accumulate Instructions: mma.sp
.variant = sp sp::ordered_metadata
.hshape = m16n8k16 m16n8k32
.tshape = m16n8k8 m16n8k16
.half = f16 f32
.fp8 = e4m3 e5m2
.bfp8 = e4m3 e5m2
.narrow = e4m3 e5m2 e3m2 e2m3 e2m1
.bnarrow = e4m3 e5m2 e3m2 e2m3 e2m1
.ishape = m16n8k32 m16n8k64
.int8 = u8 s8
.bint8 = u8 s8
.i4shape = m16n8k64 m16n8k128
.int4 = u4 s4
.bint4 = u4 s4
.vec4 = scale_vec::2X scale_vec::4X
.mxf8 = kind::mxf8f6f4.block_scale
.mxf4 = f32.e2m1.e2m1.f32.ue8m0
.nvf4 = f32.e2m1.e2m1.f32.ue8m0 f32.e2m1.e2m1.f32.ue4m3
mma.variant.sync.aligned.hshape.row.col.f16.f16.f16.f16             d, a, b, c, e, f
mma.variant.sync.aligned.hshape.row.col.f32.f16.f16.f32             d, a, b, c, e, f
mma.variant.sync.aligned.hshape.row.col.f32.bf16.bf16.f32           d, a, b, c, e, f
mma.variant.sync.aligned.tshape.row.col.f32.tf32.tf32.f32           d, a, b, c, e, f
mma.variant.sync.aligned.m16n8k64.row.col.f32.fp8.bfp8.f32          d, a, b, c, e, f
mma.sp::ordered_metadata.sync.aligned.m16n8k64.row.col.kind::f8f6f4.f16.narrow.bnarrow.f16 \
    d, a, b, c, e, f
mma.sp::ordered_metadata.sync.aligned.m16n8k64.row.col.kind::f8f6f4.f32.narrow.bnarrow.f32 \
    d, a, b, c, e, f
mma.sp::ordered_metadata.sync.aligned.m16n8k128.row.col.kind::mxf4.block_scale\
{{.scale_vec::2X}}.mxf4 d, a, b, c, e, f, scaleA, idA, scaleB, idB
mma.sp::ordered_metadata.sync.aligned.m16n8k128.row.col.kind::mxf4nvf4.block_scale.vec4.nvf4 \
    d, a, b, c, e, f, scaleA, idA, scaleB, idB
mma.sp::ordered_metadata.sync.aligned.m16n8k64.row.col.mxf8{{.scale_vec::1X}}\
.f32.narrow.bnarrow.f32.ue8m0 d, a, b, c, e, f, scaleA, idA, scaleB, idB
mma.variant.sync.aligned.ishape.row.col{{.satfinite}}.s32.int8.bint8.s32  d, a, b, c, e, f
mma.variant.sync.aligned.i4shape.row.col{{.satfinite}}.s32.int4.bint4.s32 d, a, b, c, e, f

9.7.15.5.2 Asynchronous Multiply-and-Accumulate Instruction: wgmma.mma_async
.k8 = {_wgmma_shapes(8, range(8, 257, 8))}
.k16 = {_wgmma_shapes(16, range(8, 257, 8))}
.k32 = {_wgmma_shapes(32, range(8, 257, 8))}
.i32 = {_wgmma_shapes(32, _WIDE)}
.b256 = {_wgmma_shapes(256, _WIDE)}
.half = f16 f32
.fp8 = e4m3 e5m2
.bfp8 = e4m3 e5m2
.int8 = s8 u8
.bint8 = s8 u8
wgmma.mma_async.sync.aligned.k16.half.f16.f16       d, a, b, scaleD, negA, negB, transB
wgmma.mma_async.sync.aligned.k16.half.f16.f16       d, a, b, scaleD, negA, negB, transA, transB
wgmma.mma_async.sync.aligned.k16.f32.bf16.bf16      d, a, b, scaleD, negA, negB, transB
wgmma.mma_async.sync.aligned.k16.f32.bf16.bf16      d, a, b, scaleD, negA, negB, transA, transB
wgmma.mma_async.sync.aligned.k8.f32.tf32.tf32       d, a, b, scaleD, negA, negB
wgmma.mma_async.sync.aligned.k32.half.fp8.bfp8      d, a, b, scaleD, negA, negB
wgmma.mma_async.sync.aligned.i32{{.satfinite}}.s32.int8.bint8 d, a, b, scaleD
wgmma.mma_async.sync.aligned.b256.s32.b1.b1.and.popc d, a, b, scaleD

9.7.15.6.4 Asynchronous Multiply-and-Accumulate Instruction: wgmma.mma_async.sp
.k16 = {_wgmma_shapes(16, range(8, 257, 8))}
.k32 = {_wgmma_shapes(32, range(8, 257, 8))}
.k64 = {_wgmma_shapes(64, range(8, 257, 8))}
.i64 = {_wgmma_shapes(64, _WIDE)}
.half = f16 f32
.fp8 = e4m3 e5m2
.bfp8 = e4m3 e5m2
.int8 = s8 u8
.bint8 = s8 u8
wgmma.mma_async.sp.sync.aligned.k32.half.f16.f16 \
    d, a, b, meta, selector, scaleD, negA, negB, transB
wgmma.mma_async.sp.sync.aligned.k32.half.f16.f16 \
    d, a, b, meta, selector, scaleD, negA, negB, transA, transB
wgmma.mma_async.sp.sync.aligned.k32.f32.bf16.bf16 \
    d, a, b, meta, selector, scaleD, negA, negB, transB
wgmma.mma_async.sp.sync.aligned.k32.f32.bf16.bf16 \
    d, a, b, meta, selector, scaleD, negA, negB, transA, transB
wgmma.mma_async.sp.sync.aligned.k16.f32.tf32.tf32   d, a, b, meta, selector, scaleD, negA, negB
wgmma.mma_async.sp.sync.aligned.k64.half.fp8.bfp8   d, a, b, meta, selector, scaleD, negA, negB
wgmma.mma_async.sp.sync.aligned.i64{{.satfinite}}.s32.int8.bint8 d, a, b, meta, selector, scaleD

9.7.15.7.1 Asynchronous wgmma Proxy Operations: wgmma.fence
wgmma.fence.sync.aligned

9.7.15.7.2 Asynchronous wgmma Proxy Operations: wgmma.commit_group
wgmma.commit_group.sync.aligned

9.7.15.7.3 Asynchronous wgmma Proxy Operations: wgmma.wait_group
wgmma.wait_group.sync.aligned n
"""
