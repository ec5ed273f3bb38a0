# SPDX-License-Identifier: MIT
"""Comparison, selection, logic and shifts (PTX ISA 9.7.6-9.7.8)."""

TABLE = """
.bool = and or xor
.bits = b16 b32 b64
.unsigned = u16 u32 u64
.signed = s16 s32 s64
.equal = eq ne
.ucmp = eq ne lt le gt ge lo ls hi hs
.scmp = eq ne lt le gt ge
.fcmp = eq ne lt le gt ge equ neu ltu leu gtu geu num nan

9.7.6.1 Comparison and Selection Instructions: set
.dtype = u32 s32 f32
set.equal.dtype.bits                d, a, b
set.equal.bool.dtype.bits           d, a, b, c
set.ucmp.dtype.unsigned             d, a, b
set.ucmp.bool.dtype.unsigned        d, a, b, c
set.scmp.dtype.signed               d, a, b
set.scmp.bool.dtype.signed          d, a, b, c
set.fcmp{.ftz}.dtype.f32            d, a, b
set.fcmp.bool{.ftz}.dtype.f32       d, a, b, c
set.fcmp.dtype.f64                  d, a, b
set.fcmp.bool.dtype.f64             d, a, b, c

9.7.6.2 Comparison and Selection Instructions: setp
setp.equal.bits                     p{|q}, a, b
setp.equal.bool.bits                p{|q}, a, b, c
setp.ucmp.unsigned                  p{|q}, a, b
setp.ucmp.bool.unsigned             p{|q}, a, b, c
setp.scmp.signed                    p{|q}, a, b
setp.scmp.bool.signed               p{|q}, a, b, c
setp.fcmp{.ftz}.f32                 p{|q}, a, b
setp.fcmp.bool{.ftz}.f32            p{|q}, a, b, c
setp.fcmp.f64                       p{|q}, a, b
setp.fcmp.bool.f64                  p{|q}, a, b, c

9.7.6.3 Comparison and Selection Instructions: selp
.type = b16 b32 b64 u16 u32 u64 s16 s32 s64 f32 f64
selp.type                           d, a, b, c

9.7.6.4 Comparison and Selection Instructions: slct
.dtype = b16 b32 b64 u16 u32 u64 s16 s32 s64 f32 f64
slct.dtype.s32                      d, a, b, c
slct{.ftz}.dtype.f32                d, a, b, c

9.7.7.1 Half Precision Comparison Instructions: set
.half = f16 bf16
.dtype = u16 u32 s16 s32
set.equal.half.bits                 d, a, b
set.equal.bool.half.bits            d, a, b, c
set.ucmp.half.unsigned              d, a, b
set.ucmp.bool.half.unsigned         d, a, b, c
set.scmp.half.signed                d, a, b
set.scmp.bool.half.signed           d, a, b, c
set.fcmp{.ftz}.half.f32             d, a, b
set.fcmp.bool{.ftz}.half.f32        d, a, b, c
set.fcmp.half.f64                   d, a, b
set.fcmp.bool.half.f64              d, a, b, c
set.fcmp{.ftz}.f16.f16              d, a, b
set.fcmp.bool{.ftz}.f16.f16         d, a, b, c
set.fcmp.bf16.bf16                  d, a, b
set.fcmp.bool.bf16.bf16             d, a, b, c
set.fcmp{.ftz}.dtype.f16            d, a, b
set.fcmp.bool{.ftz}.dtype.f16       d, a, b, c
set.fcmp.dtype.bf16                 d, a, b
set.fcmp.bool.dtype.bf16            d, a, b, c
set.fcmp{.ftz}.f16x2.f16x2          d, a, b
set.fcmp.bool{.ftz}.f16x2.f16x2     d, a, b, c
set.fcmp.bf16x2.bf16x2              d, a, b
set.fcmp.bool.bf16x2.bf16x2         d, a, b, c

9.7.7.2 Half Precision Comparison Instructions: setp
.half = f16 f16x2
.bhalf = bf16 bf16x2
setp.fcmp{.ftz}.half                p{|q}, a, b
setp.fcmp.bool{.ftz}.half           p{|q}, a, b, c
setp.fcmp.bhalf                     p{|q}, a, b
setp.fcmp.bool.bhalf                p{|q}, a, b, c

9.7.8.1 Logic and Shift Instructions: and
.type = pred b16 b32 b64
and.type                            d, a, b

9.7.8.2 Logic and Shift Instructions: or
.type = pred b16 b32 b64
or.type                             d, a, b

9.7.8.3 Logic and Shift Instructions: xor
.type = pred b16 b32 b64
xor.type                            d, a, b

9.7.8.4 Logic and Shift Instructions: not
.type = pred b16 b32 b64
not.type                            d, a

9.7.8.5 Logic and Shift Instructions: cnot
cnot.bits                           d, a

9.7.8.6 Logic and Shift Instructions: lop3
.op = or and
lop3.b32                            d, a, b, c, immLut
lop3.op.b32                         d|p, a, b, c, immLut, q

9.7.8.7 Logic and Shift Instructions: shf
.direction = l r
.mode = clamp wrap
shf.direction.mode.b32              d, a, b, c

9.7.8.8 Logic and Shift Instructions: shl
shl.bits                            d, a, b

9.7.8.9 Logic and Shift Instructions: shr
.type = b16 b32 b64 u16 u32 u64 s16 s32 s64
shr.type                            d, a, b
"""
