# SPDX-License-Identifier: MIT
"""Conversions between number formats (PTX ISA 9.7.9.21 and 9.7.9.22).

Beyond 9.0 it has the narrow formats from f16x2 and bf16x2, which PTX ISA 9.1 adds.
"""

TABLE = """
.irnd = rni rzi rmi rpi
.frnd = rn rz rm rp
.near = rn rz
.half = f16 bf16
.half2 = f16x2 bf16x2
.f8x2 = e4m3x2 e5m2x2
.f6x2 = e2m3x2 e3m2x2
.fx4 = e4m3x4 e5m2x4 e2m3x4 e3m2x4 e2m1x4

9.7.9.21 Data Movement and Conversion Instructions: cvt
.int = u8 u16 u32 u64 s8 s16 s32 s64
.aint = u8 u16 u32 u64 s8 s16 s32 s64
.float = f16 bf16 f32 f64
.afloat = f16 bf16 f32 f64
.scale = rz rp
cvt{.sat}.int.aint                          d, a
cvt.irnd{.ftz}{.sat}.int.afloat             d, a
cvt.frnd{.sat}.float.aint                   d, a
cvt{.irnd}{.ftz}{.sat}.float.afloat         d, a
cvt.frnd{.ftz}{.sat}.float.afloat           d, a
cvt.near{.relu}{.satfinite}.half.f32        d, a
cvt.near{.relu}{.satfinite}.half2.f32       d, a, b
cvt.rs{.relu}{.satfinite}.half2.f32         d, a, b, rbits
cvt.rna{.satfinite}.tf32.f32                d, a
cvt.near{.satfinite}{.relu}.tf32.f32        d, a
cvt.rn.satfinite{.relu}.f8x2.f32            d, a, b
cvt.rn.satfinite{.relu}.f8x2.half2          d, a
cvt.rn{.relu}.f16x2.f8x2                    d, a
cvt.rn.satfinite{.relu}.e2m1x2.f32          d, a, b
cvt.rn.satfinite{.relu}.e2m1x2.half2        d, a
cvt.rn{.relu}.f16x2.e2m1x2                  d, a
cvt.rn.satfinite{.relu}.f6x2.f32            d, a, b
cvt.rn.satfinite{.relu}.f6x2.half2          d, a
cvt.rn{.relu}.f16x2.f6x2                    d, a
cvt.rs{.relu}.satfinite.fx4.f32             d, abef, rbits
cvt.scale{.satfinite}.ue8m0x2.f32           d, a, b
cvt.scale{.satfinite}.ue8m0x2.bf16x2        d, a
cvt.rn.bf16x2.ue8m0x2                       d, a

9.7.9.22 Data Movement and Conversion Instructions: cvt.pack
.convert = u16 s16
.narrow = u8 s8 u4 s4 u2 s2
cvt.pack.sat.convert.s32                    d, a, b
cvt.pack.sat.narrow.s32.b32                 d, a, b, c
"""
