# SPDX-License-Identifier: MIT
"""Tensor memory and the fifth-generation tensor core (PTX ISA 9.7.16)."""

TABLE = """
.group = cta_group::1 cta_group::2
.shape = 16x64b 16x128b 16x256b 32x32b
.num = x1 x2 x4 x8 x16 x32 x64 x128
.kind = kind::f16 kind::tf32 kind::f8f6f4
.mxkind = kind::mxf8f6f4 kind::mxf4 kind::mxf4nvf4
.size = scale_vec::1X scale_vec::2X scale_vec::4X block16 block32
.a_use = collector::a::fill collector::a::use collector::a::lastuse collector::a::discard
.b_use = collector::b0::fill collector::b0::use collector::b0::lastuse collector::b0::discard \
    collector::b1::fill collector::b1::use collector::b1::lastuse collector::b1::discard \
    collector::b2::fill collector::b2::use collector::b2::lastuse collector::b2::discard \
    collector::b3::fill collector::b3::use collector::b3::lastuse collector::b3::discard

9.7.16.7.1 TensorCore 5th Generation Instructions: tcgen05.alloc, tcgen05.dealloc, \
    tcgen05.relinquish_alloc_permit
tcgen05.alloc.group.sync.aligned{.shared::cta}.b32          [dst], columns
tcgen05.dealloc.group.sync.aligned.b32                      taddr, columns
tcgen05.relinquish_alloc_permit.group.sync.aligned

9.7.16.8.3 TensorCore 5th Generation Instructions: tcgen05.ld
.red_num = x2 x4 x8 x16 x32 x64 x128
.op = min max
.type = u32 s32
tcgen05.ld.sync.aligned.shape.num{.pack::16b}.b32           r, [taddr]
tcgen05.ld.sync.aligned.16x32bx2.num{.pack::16b}.b32        r, [taddr], split
tcgen05.ld.red.sync.aligned.32x32b.red_num.op{.abs}{.NaN}.f32   r, red, [taddr]
tcgen05.ld.red.sync.aligned.16x32bx2.red_num.op{.abs}{.NaN}.f32 r, red, [taddr], split
tcgen05.ld.red.sync.aligned.32x32b.red_num.op.type          r, red, [taddr]
tcgen05.ld.red.sync.aligned.16x32bx2.red_num.op.type        r, red, [taddr], split

9.7.16.8.4 TensorCore 5th Generation Instructions: tcgen05.st
tcgen05.st.sync.aligned.shape.num{.unpack::16b}.b32         [taddr], r
tcgen05.st.sync.aligned.16x32bx2.num{.unpack::16b}.b32      [taddr], split, r

9.7.16.8.5 TensorCore 5th Generation Instructions: tcgen05.wait
.what = wait::ld wait::st
tcgen05.what.sync.aligned

9.7.16.9.2 TensorCore 5th Generation Instructions: tcgen05.cp
.shape = 128x256b 4x256b 128x128b
.half = warpx2::02_13 warpx2::01_23
.format = b8x16.b6x16_p32 b8x16.b4x16_p64
tcgen05.cp.group.shape{.format}                             [taddr], desc
tcgen05.cp.group.64x128b.half{.format}                      [taddr], desc
tcgen05.cp.group.32x128b.warpx4{.format}                    [taddr], desc

9.7.16.9.3 TensorCore 5th Generation Instructions: tcgen05.shift
tcgen05.shift.group.down                                    [taddr]

9.7.16.10.9.1 TensorCore 5th Generation Instructions: tcgen05.mma
tcgen05.mma.group.kind{.a_use}                  [d], a, b, idesc{, lanes}, enable{, scale}
tcgen05.mma.group.kind{.ashift}{.a_use}         [d], [a], b, idesc{, lanes}, enable{, scale}
tcgen05.mma.group.mxkind.block_scale{.size}{.a_use} [d], a, b, idesc, [scaleA], [scaleB], enable
tcgen05.mma.group.mxkind.block_scale{.size}{.a_use} [d], [a], b, idesc, [scaleA], [scaleB], enable
tcgen05.mma.group.kind::i8{.a_use}              [d], a, b, idesc{, lanes}, enable
tcgen05.mma.group.kind::i8{.ashift}{.a_use}     [d], [a], b, idesc{, lanes}, enable

9.7.16.10.9.2 TensorCore 5th Generation Instructions: tcgen05.mma.sp
tcgen05.mma.sp.group.kind{.a_use}               [d], a, b, [meta], idesc{, lanes}, enable{, scale}
tcgen05.mma.sp.group.kind{.ashift}{.a_use}      [d], [a], b, [meta], idesc{, lanes}, enable{, scale}
tcgen05.mma.sp.group.mxkind.block_scale{.size}{.a_use} \
    [d], a, b, [meta], idesc, [scaleA], [scaleB], enable
tcgen05.mma.sp.group.mxkind.block_scale{.size}{.a_use} \
    [d], [a], b, [meta], idesc, [scaleA], [scaleB], enable
tcgen05.mma.sp.group.kind::i8{.a_use}           [d], a, b, [meta], idesc{, lanes}, enable
tcgen05.mma.sp.group.kind::i8{.ashift}{.a_use}  [d], [a], b, [meta], idesc{, lanes}, enable

9.7.16.10.9.3 TensorCore 5th Generation Instructions: tcgen05.mma.ws
.wskind = kind::f16 kind::tf32 kind::f8f6f4 kind::i8
tcgen05.mma.ws.cta_group::1.wskind{.b_use}      [d], a, b, idesc, enable{, zeros}
tcgen05.mma.ws.cta_group::1.wskind{.b_use}      [d], [a], b, idesc, enable{, zeros}

9.7.16.10.9.4 TensorCore 5th Generation Instructions: tcgen05.mma.ws.sp
.wskind = kind::f16 kind::tf32 kind::f8f6f4 kind::i8
tcgen05.mma.ws.sp.cta_group::1.wskind{.b_use}   [d], a, b, [meta], idesc, enable{, zeros}
tcgen05.mma.ws.sp.cta_group::1.wskind{.b_use}   [d], [a], b, [meta], idesc, enable{, zeros}

9.7.16.11.1 TensorCore 5th Generation Specialized Synchronization Operations: tcgen05.fence
.when = fence::before_thread_sync fence::after_thread_sync
tcgen05.when

9.7.16.12.1 TensorCore 5th Generation Async Synchronization Operations: tcgen05.commit
.done = mbarrier::arrive::one
.multicast = multicast::cluster
tcgen05.commit.group.done{.shared::cluster}.b64                 [mbar]
tcgen05.commit.group.done{.shared::cluster}.multicast.b64       [mbar], mask
"""
