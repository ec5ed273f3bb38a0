# SPDX-License-Identifier: MIT
"""Floating-point arithmetic of f16, bf16, f32, f64 and their packed forms (PTX ISA 9.7.3-9.7.5)."""

TABLE = """
.rnd = rn rz rm rp
.halves = f16 f16x2
.bhalves = bf16 bf16x2

9.7.3.1 Floating Point Instructions: testp
.op = finite infinite number notanumber normal subnormal
.type = f32 f64
testp.op.type           p, a

9.7.3.2 Floating Point Instructions: copysign
.type = f32 f64
copysign.type           d, a, b

9.7.3.3 Floating Point Instructions: add
add{.rnd}{.ftz}{.sat}.f32   d, a, b
add{.rnd}{.ftz}.f32x2       d, a, b
add{.rnd}.f64               d, a, b

9.7.3.4 Floating Point Instructions: sub
sub{.rnd}{.ftz}{.sat}.f32   d, a, b
sub{.rnd}{.ftz}.f32x2       d, a, b
sub{.rnd}.f64               d, a, b

9.7.3.5 Floating Point Instructions: mul
mul{.rnd}{.ftz}{.sat}.f32   d, a, b
mul{.rnd}{.ftz}.f32x2       d, a, b
mul{.rnd}.f64               d, a, b

9.7.3.6 Floating Point Instructions: fma
fma.rnd{.ftz}{.sat}.f32     d, a, b, c
fma.rnd{.ftz}.f32x2         d, a, b, c
fma.rnd.f64                 d, a, b, c

9.7.3.7 Floating Point Instructions: mad
mad.rnd{.ftz}{.sat}.f32     d, a, b, c
mad.rnd.f64                 d, a, b, c

9.7.3.8 Floating Point Instructions: div
.fast = approx full
div.fast{.ftz}.f32          d, a, b
div.rnd{.ftz}.f32           d, a, b
div.rnd.f64                 d, a, b

9.7.3.9 Floating Point Instructions: abs
abs{.ftz}.f32               d, a
abs.f64                     d, a

9.7.3.10 Floating Point Instructions: neg
neg{.ftz}.f32               d, a
neg.f64                     d, a

9.7.3.11 Floating Point Instructions: min
min{.ftz}{.NaN}{.xorsign.abs}.f32   d, a, b
min{.ftz}{.NaN}{.abs}.f32           d, a, b, c
min.f64                             d, a, b

9.7.3.12 Floating Point Instructions: max
max{.ftz}{.NaN}{.xorsign.abs}.f32   d, a, b
max{.ftz}{.NaN}{.abs}.f32           d, a, b, c
max.f64                             d, a, b

9.7.3.13 Floating Point Instructions: rcp
rcp.approx{.ftz}.f32        d, a
rcp.rnd{.ftz}.f32           d, a
rcp.rnd.f64                 d, a

9.7.3.14 Floating Point Instructions: rcp.approx.ftz.f64
rcp.approx.ftz.f64          d, a

9.7.3.15 Floating Point Instructions: sqrt
sqrt.approx{.ftz}.f32       d, a
sqrt.rnd{.ftz}.f32          d, a
sqrt.rnd.f64                d, a

9.7.3.16 Floating Point Instructions: rsqrt
rsqrt.approx{.ftz}.f32      d, a
rsqrt.approx.f64            d, a

9.7.3.17 Floating Point Instructions: rsqrt.approx.ftz.f64
rsqrt.approx.ftz.f64        d, a

9.7.3.18 Floating Point Instructions: sin
sin.approx{.ftz}.f32        d, a

9.7.3.19 Floating Point Instructions: cos
cos.approx{.ftz}.f32        d, a

9.7.3.20 Floating Point Instructions: lg2
lg2.approx{.ftz}.f32        d, a

9.7.3.21 Floating Point Instructions: ex2
ex2.approx{.ftz}.f32        d, a

9.7.3.22 Floating Point Instructions: tanh
tanh.approx.f32             d, a

9.7.4.1 Half Precision Floating Point Instructions: add
add{.rn}{.ftz}{.sat}.halves d, a, b
add{.rn}.bhalves            d, a, b

9.7.4.2 Half Precision Floating Point Instructions: sub
sub{.rn}{.ftz}{.sat}.halves d, a, b
sub{.rn}.bhalves            d, a, b

9.7.4.3 Half Precision Floating Point Instructions: mul
mul{.rn}{.ftz}{.sat}.halves d, a, b
mul{.rn}.bhalves            d, a, b

9.7.4.4 Half Precision Floating Point Instructions: fma
fma.rn{.ftz}{.sat}.halves   d, a, b, c
fma.rn{.ftz}.relu.halves    d, a, b, c
fma.rn{.relu}.bhalves       d, a, b, c
fma.rn.oob{.relu}.halves    d, a, b, c
fma.rn.oob{.relu}.bhalves   d, a, b, c

9.7.4.5 Half Precision Floating Point Instructions: neg
neg{.ftz}.halves            d, a
neg.bhalves                 d, a

9.7.4.6 Half Precision Floating Point Instructions: abs
abs{.ftz}.halves            d, a
abs.bhalves                 d, a

9.7.4.7 Half Precision Floating Point Instructions: min
min{.ftz}{.NaN}{.xorsign.abs}.halves    d, a, b
min{.NaN}{.xorsign.abs}.bhalves         d, a, b

9.7.4.8 Half Precision Floating Point Instructions: max
max{.ftz}{.NaN}{.xorsign.abs}.halves    d, a, b
max{.NaN}{.xorsign.abs}.bhalves         d, a, b

9.7.4.9 Half Precision Floating Point Instructions: tanh
tanh.approx.halves          d, a
tanh.approx.bhalves         d, a

9.7.4.10 Half Precision Floating Point Instructions: ex2
ex2.approx.halves           d, a
ex2.approx.ftz.bhalves      d, a

9.7.5.1 Mixed Precision Floating Point Instructions: add
.half = f16 bf16
add{.rnd}{.sat}.f32.half    d, a, c

9.7.5.2 Mixed Precision Floating Point Instructions: sub
.half = f16 bf16
sub{.rnd}{.sat}.f32.half    d, a, c

9.7.5.3 Mixed Precision Floating Point Instructions: fma
.half = f16 bf16
fma.rnd{.sat}.f32.half      d, a, b, c
"""
