# SPDX-License-Identifier: MIT
"""Integer arithmetic, with carries and in packed form (PTX ISA 9.7.1 and 9.7.2)."""

TABLE = """
.int = u16 u32 u64 s16 s32 s64
.signed = s16 s32 s64
.word = u32 s32
.words = u32 u64 s32 s64

9.7.1.1 Integer Arithmetic Instructions: add
.pair = u16x2 s16x2
add.int             d, a, b
add.pair            d, a, b
add.sat.s32         d, a, b

9.7.1.2 Integer Arithmetic Instructions: sub
sub.int             d, a, b
sub.sat.s32         d, a, b

9.7.1.3 Integer Arithmetic Instructions: mul
.half = hi lo
.narrow = u16 u32 s16 s32
mul.half.int        d, a, b
mul.wide.narrow     d, a, b

9.7.1.4 Integer Arithmetic Instructions: mad
.half = hi lo
.narrow = u16 u32 s16 s32
mad.half.int        d, a, b, c
mad.wide.narrow     d, a, b, c
mad.hi.sat.s32      d, a, b, c

9.7.1.5 Integer Arithmetic Instructions: mul24
.half = hi lo
mul24.half.word     d, a, b

9.7.1.6 Integer Arithmetic Instructions: mad24
.half = hi lo
mad24.half.word     d, a, b, c
mad24.hi.sat.s32    d, a, b, c

9.7.1.7 Integer Arithmetic Instructions: sad
sad.int             d, a, b, c

9.7.1.8 Integer Arithmetic Instructions: div
div.int             d, a, b

9.7.1.9 Integer Arithmetic Instructions: rem
rem.int             d, a, b

9.7.1.10 Integer Arithmetic Instructions: abs
abs.signed          d, a

9.7.1.11 Integer Arithmetic Instructions: neg
neg.signed          d, a

9.7.1.12 Integer Arithmetic Instructions: min
.relu_type = s16x2 s32
min.int             d, a, b
min.u16x2           d, a, b
min{.relu}.relu_type d, a, b

9.7.1.13 Integer Arithmetic Instructions: max
.relu_type = s16x2 s32
max.int             d, a, b
max.u16x2           d, a, b
max{.relu}.relu_type d, a, b

9.7.1.14 Integer Arithmetic Instructions: popc
.type = b32 b64
popc.type           d, a

9.7.1.15 Integer Arithmetic Instructions: clz
.type = b32 b64
clz.type            d, a

9.7.1.16 Integer Arithmetic Instructions: bfind
bfind.words         d, a
bfind.shiftamt.words d, a

9.7.1.17 Integer Arithmetic Instructions: fns
fns.b32             d, mask, base, offset

9.7.1.18 Integer Arithmetic Instructions: brev
.type = b32 b64
brev.type           d, a

9.7.1.19 Integer Arithmetic Instructions: bfe
bfe.words           d, a, b, c

9.7.1.20 Integer Arithmetic Instructions: bfi
.type = b32 b64
bfi.type            f, a, b, c, d

9.7.1.21 Integer Arithmetic Instructions: szext
.mode = clamp wrap
szext.mode.word     d, a, b

9.7.1.22 Integer Arithmetic Instructions: bmsk
.mode = clamp wrap
bmsk.mode.b32       d, a, b

9.7.1.23 Integer Arithmetic Instructions: dp4a
.atype = u32 s32
.btype = u32 s32
dp4a.atype.btype    d, a, b, c

9.7.1.24 Integer Arithmetic Instructions: dp2a
.mode = lo hi
.atype = u32 s32
.btype = u32 s32
dp2a.mode.atype.btype d, a, b, c

9.7.2.1 Extended-Precision Arithmetic Instructions: add.cc
add.cc.words        d, a, b

9.7.2.2 Extended-Precision Arithmetic Instructions: addc
addc{.cc}.words     d, a, b

9.7.2.3 Extended-Precision Arithmetic Instructions: sub.cc
sub.cc.words        d, a, b

9.7.2.4 Extended-Precision Arithmetic Instructions: subc
subc{.cc}.words     d, a, b

9.7.2.5 Extended-Precision Arithmetic Instructions: mad.cc
.half = hi lo
mad.half.cc.words   d, a, b, c

9.7.2.6 Extended-Precision Arithmetic Instructions: madc
.half = hi lo
madc.half{.cc}.words d, a, b, c
"""
