# SPDX-License-Identifier: MIT
"""Data movement that completes where it stands: moves, loads, stores, hints (PTX ISA 9.7.9)."""

TABLE = """
.type = b8 b16 b32 b64 b128 u8 u16 u32 u64 s8 s16 s32 s64 f32 f64
.vec = v2 v4
.wide = v8.b32 v8.u32 v8.s32 v8.f32 v4.b64 v4.u64 v4.s64 v4.f64
.l1 = L1::evict_normal L1::evict_unchanged L1::evict_first L1::evict_last L1::no_allocate
.l2 = L2::evict_normal L2::evict_first L2::evict_last
.hint = L2::cache_hint
.prefetch = L2::64B L2::128B L2::256B
.scope = cta cluster gpu sys
.addr = u32 u64

9.7.9.3 Data Movement and Conversion Instructions: mov
.type = pred b16 b32 b64 u16 u32 u64 s16 s32 s64 f32 f64
mov.type                d, a

9.7.9.4 Data Movement and Conversion Instructions: mov
.type = b16 b32 b64 b128
mov.type                d, a

9.7.9.6 Data Movement and Conversion Instructions: shfl.sync
.mode = up down bfly idx
shfl.sync.mode.b32      d{|p}, a, b, c, membermask

9.7.9.7 Data Movement and Conversion Instructions: prmt
.mode = f4e b4e rc8 ecl ecr rc16
prmt.b32{.mode}         d, a, b, c

9.7.9.8 Data Movement and Conversion Instructions: ld
.space = const global local param::entry param::func param shared::cta shared::cluster shared
.strong = global shared::cta shared::cluster shared
.volatile_space = global local shared::cta shared::cluster shared
.cop = ca cg cs lu cv
.sem = relaxed acquire
ld{.weak}{.space}{.cop}{.hint}{.prefetch}{.vec}.type            d, [a]{, policy}
ld{.weak}{.space}{.l1}{.hint}{.prefetch}{.vec}.type             d, [a]{, policy}
ld{.weak}{.global}{.cop}{.hint}{.prefetch}.wide                 d, [a]{, policy}
ld{.weak}{.global}{.l1}{.l2}{.hint}{.prefetch}.wide             d, [a]{, policy}
ld.volatile{.volatile_space}{.prefetch}{.vec}.type              d, [a]
ld.sem.scope{.strong}{.l1}{.hint}{.prefetch}{.vec}.type         d, [a]{, policy}
ld.sem.scope{.global}{.l1}{.l2}{.hint}{.prefetch}.wide          d, [a]{, policy}
ld.mmio.relaxed.sys{.global}.type                               d, [a]

9.7.9.9 Data Movement and Conversion Instructions: ld.global.nc
.cop = ca cg cs
ld.global{.cop}.nc{.hint}{.prefetch}{.vec}.type                 d, [a]{, policy}
ld.global.nc{.l1}{.hint}{.prefetch}{.vec}.type                  d, [a]{, policy}
ld.global{.cop}.nc{.hint}{.prefetch}.wide                       d, [a]{, policy}
ld.global.nc{.l1}{.l2}{.hint}{.prefetch}.wide                   d, [a]{, policy}

9.7.9.10 Data Movement and Conversion Instructions: ldu
.vec = v2 v4
ldu{.global}{.vec}.type d, [a]

9.7.9.11 Data Movement and Conversion Instructions: st
.space = global local param::func param shared::cta shared::cluster shared
.strong = global shared::cta shared::cluster shared
.volatile_space = global local shared::cta shared::cluster shared
.cop = wb cg cs wt
.sem = relaxed release
st{.weak}{.space}{.cop}{.hint}{.vec}.type                       [a], b{, policy}
st{.weak}{.space}{.l1}{.hint}{.vec}.type                        [a], b{, policy}
st{.weak}{.global}{.cop}{.hint}.wide                            [a], b{, policy}
st{.weak}{.global}{.l1}{.l2}{.hint}.wide                        [a], b{, policy}
st.volatile{.volatile_space}{.vec}.type                         [a], b
st.sem.scope{.strong}{.l1}{.hint}{.vec}.type                    [a], b{, policy}
st.sem.scope{.global}{.l1}{.l2}{.hint}.wide                     [a], b{, policy}
st.mmio.relaxed.sys{.global}.type                               [a], b

9.7.9.12 Data Movement and Conversion Instructions: st.async
.type = b32 b64 u32 u64 s32 s64 f32 f64
.vec = v2 v4
.flat_type = b8 b16 b32 b64 u8 u16 u32 u64 s8 s16 s32 s64 f32 f64
.far = gpu sys
st.async{.weak}{.shared::cluster}.mbarrier::complete_tx::bytes{.vec}.type [a], b, [mbar]
st.async{.mmio}.release.far{.global}.flat_type [a], b

9.7.9.13 Data Movement and Conversion Instructions: st.bulk
st.bulk{.weak}{.shared::cta} [a], size, initval

9.7.9.14 Data Movement and Conversion Instructions: multimem.ld_reduce, multimem.st, multimem.red
.load = relaxed acquire
.store = relaxed release
.order = min max
.order_type = u32 u64 s32 s64
.add_type = u32 s32 u64 f32 f64 v2.f32 v4.f32
.bool = and or xor
.bits = b32 b64
.half = f16x2 bf16x2 v2.f16 v4.f16 v8.f16 v2.bf16 v4.bf16 v8.bf16 v2.f16x2 v4.f16x2 v2.bf16x2 \
    v4.bf16x2
.fp8 = e5m2x4 e4m3x4 v4.e5m2 v8.e5m2 v4.e4m3 v8.e4m3 v2.e5m2x2 v4.e5m2x2 v8.e5m2x2 v2.e4m3x2 \
    v4.e4m3x2 v8.e4m3x2 v2.e5m2x4 v4.e5m2x4 v2.e4m3x4 v4.e4m3x4
.type = b32 b64 u32 u64 s32 s64 f32 f64 v2.f32 v4.f32
multimem.ld_reduce{.load.scope}{.global}.order.order_type       d, [a]
multimem.ld_reduce{.load.scope}{.global}.add.add_type           d, [a]
multimem.ld_reduce{.load.scope}{.global}.bool.bits              d, [a]
multimem.ld_reduce{.load.scope}{.global}.order.half             d, [a]
multimem.ld_reduce{.load.scope}{.global}.add{.acc::f32}.half    d, [a]
multimem.ld_reduce{.load.scope}{.global}.order.fp8              d, [a]
multimem.ld_reduce{.load.scope}{.global}.add{.acc::f16}.fp8     d, [a]
multimem.ld_reduce.weak{.global}.order.order_type               d, [a]
multimem.ld_reduce.weak{.global}.add.add_type                   d, [a]
multimem.ld_reduce.weak{.global}.bool.bits                      d, [a]
multimem.ld_reduce.weak{.global}.order.half                     d, [a]
multimem.ld_reduce.weak{.global}.add{.acc::f32}.half            d, [a]
multimem.ld_reduce.weak{.global}.order.fp8                      d, [a]
multimem.ld_reduce.weak{.global}.add{.acc::f16}.fp8             d, [a]
multimem.st{.store.scope}{.global}.type                         [a], b
multimem.st{.store.scope}{.global}.half                         [a], b
multimem.st{.store.scope}{.global}.fp8                          [a], b
multimem.st.weak{.global}.type                                  [a], b
multimem.st.weak{.global}.half                                  [a], b
multimem.st.weak{.global}.fp8                                   [a], b
multimem.red{.store.scope}{.global}.order.order_type            [a], b
multimem.red{.store.scope}{.global}.add.add_type                [a], b
multimem.red{.store.scope}{.global}.bool.bits                   [a], b
multimem.red{.store.scope}{.global}.add.half                    [a], b

9.7.9.15 Data Movement and Conversion Instructions: prefetch, prefetchu
.space = global local
.level = L1 L2
.priority = L2::evict_last L2::evict_normal
.map_space = const param
prefetch{.space}.level          [a]
prefetch.global.priority        [a]
prefetchu.L1                    [a]
prefetch{.map_space}.tensormap  [a]

9.7.9.16 Data Movement and Conversion Instructions: applypriority
applypriority{.global}.L2::evict_normal [a], size

9.7.9.17 Data Movement and Conversion Instructions: discard
discard{.global}.L2             [a], size

9.7.9.18 Data Movement and Conversion Instructions: createpolicy
.first = L2::evict_last L2::evict_normal L2::evict_first L2::evict_unchanged
.second = L2::evict_first L2::evict_unchanged
createpolicy.range{.global}.first{.second}.b64  policy, [a], primary, total
createpolicy.fractional.first{.second}.b64      policy{, fraction}
createpolicy.cvt.L2.b64                         policy, property

9.7.9.19 Data Movement and Conversion Instructions: isspacep
.space = const global local shared::cta shared::cluster shared param::entry param
isspacep.space          p, a

9.7.9.20 Data Movement and Conversion Instructions: cvta
.space = const global local shared::cta shared::cluster shared param::entry param
cvta.space.addr         p, a
cvta.to.space.addr      p, a

9.7.9.23 Data Movement and Conversion Instructions: mapa
mapa{.shared::cluster}.addr     d, a, b

9.7.9.24 Data Movement and Conversion Instructions: getctarank
getctarank{.shared::cluster}.addr d, a
"""
