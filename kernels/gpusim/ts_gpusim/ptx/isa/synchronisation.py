# SPDX-License-Identifier: MIT
"""Barriers, fences, atomics and votes (PTX ISA 9.7.13)."""

TABLE = """
.scope = cta cluster gpu sys
.space = global shared shared::cta shared::cluster
.hint = L2::cache_hint
.half = f16 f16x2 bf16 bf16x2

9.7.13.1 Parallel Synchronization and Communication Instructions: bar, barrier
.bool = and or
barrier{.cta}.sync{.aligned}                    a{, b}
barrier{.cta}.arrive{.aligned}                  a, b
barrier{.cta}.red.popc{.aligned}.u32            d, a{, b}, c
barrier{.cta}.red.bool{.aligned}.pred           p, a{, b}, c
bar{.cta}.sync                                  a{, b}
bar{.cta}.arrive                                a, b
bar{.cta}.red.popc.u32                          d, a{, b}, c
bar{.cta}.red.bool.pred                         p, a{, b}, c

9.7.13.2 Parallel Synchronization and Communication Instructions: bar.warp.sync
bar.warp.sync                                   membermask

9.7.13.3 Parallel Synchronization and Communication Instructions: barrier.cluster
.sem = release relaxed
barrier.cluster.arrive{.sem}{.aligned}
barrier.cluster.wait{.acquire}{.aligned}

9.7.13.4 Parallel Synchronization and Communication Instructions: membar, fence
.sem = sc acq_rel acquire release
.level = cta gl sys
.proxy_kind = alias async async.global async.shared::cta async.shared::cluster
fence{.sem}.scope
fence.acquire.sync_restrict::shared::cluster.cluster
fence.release.sync_restrict::shared::cta.cluster
fence.mbarrier_init.release.cluster
fence.proxy.proxy_kind
fence.proxy.tensormap::generic.release.scope
fence.proxy.tensormap::generic.acquire.scope    [a], size
fence.proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster
fence.proxy.async::generic.release.sync_restrict::shared::cta.cluster
membar.level
membar.proxy.alias

9.7.13.5 Parallel Synchronization and Communication Instructions: atom
.sem = relaxed acquire release acq_rel
.bits = b32 b64
.wide_bits = b16 b32 b64 b128
.bool = and or xor
.step = inc dec
.add_type = u32 s32 u64 f32 f64
.order = min max
.order_type = u32 s32 u64 s64
.op = add min max
.vec = v2 v4
.hvec = v2 v4 v8
.exch_type = b32 b64 b128
.scalar = f16 bf16
.packed = f16x2 bf16x2
atom{.sem}{.scope}{.space}.bool{.hint}.bits         d, [a], b{, policy}
atom{.sem}{.scope}{.space}.exch{.hint}.exch_type    d, [a], b{, policy}
atom{.sem}{.scope}{.space}.cas.wide_bits            d, [a], b, c
atom{.sem}{.scope}{.space}.step{.hint}.u32          d, [a], b{, policy}
atom{.sem}{.scope}{.space}.add{.hint}.add_type      d, [a], b{, policy}
atom{.sem}{.scope}{.space}.order{.hint}.order_type  d, [a], b{, policy}
atom{.sem}{.scope}{.space}.add.noftz{.hint}.half    d, [a], b{, policy}
atom{.sem}{.scope}{.global}.add{.hint}.vec.f32      d, [a], b{, policy}
atom{.sem}{.scope}{.global}.op.noftz{.hint}.hvec.scalar d, [a], b{, policy}
atom{.sem}{.scope}{.global}.op.noftz{.hint}.vec.packed  d, [a], b{, policy}

9.7.13.6 Parallel Synchronization and Communication Instructions: red
.sem = relaxed release
.bits = b32 b64
.bool = and or xor
.step = inc dec
.add_type = u32 s32 u64 f32 f64
.order = min max
.order_type = u32 s32 u64 s64
.op = add min max
.vec = v2 v4
.hvec = v2 v4 v8
.scalar = f16 bf16
.packed = f16x2 bf16x2
red{.sem}{.scope}{.space}.bool{.hint}.bits          [a], b{, policy}
red{.sem}{.scope}{.space}.step{.hint}.u32           [a], b{, policy}
red{.sem}{.scope}{.space}.add{.hint}.add_type       [a], b{, policy}
red{.sem}{.scope}{.space}.order{.hint}.order_type   [a], b{, policy}
red{.sem}{.scope}{.space}.add.noftz{.hint}.half     [a], b{, policy}
red{.sem}{.scope}{.global}.add{.hint}.vec.f32       [a], b{, policy}
red{.sem}{.scope}{.global}.op.noftz{.hint}.hvec.scalar [a], b{, policy}
red{.sem}{.scope}{.global}.op.noftz{.hint}.vec.packed  [a], b{, policy}

9.7.13.7 Parallel Synchronization and Communication Instructions: red.async
.bool = and or xor
.step = inc dec
.order = min max
.word = u32 s32
.add_type = u32 s32 u64
.far = gpu sys
.far_type = u32 s32 u64 s64
.bytes = mbarrier::complete_tx::bytes
red.async.relaxed.cluster{.shared::cluster}.bytes.step.u32      [a], b, [mbar]
red.async.relaxed.cluster{.shared::cluster}.bytes.order.word    [a], b, [mbar]
red.async.relaxed.cluster{.shared::cluster}.bytes.bool.b32      [a], b, [mbar]
red.async.relaxed.cluster{.shared::cluster}.bytes.add.add_type  [a], b, [mbar]
red.async{.mmio}.release.far{.global}.add.far_type              [a], b

9.7.13.9 Parallel Synchronization and Communication Instructions: vote.sync
.mode = all any uni
vote.sync.mode.pred             p, a, membermask
vote.sync.ballot.b32            d, a, membermask

9.7.13.10 Parallel Synchronization and Communication Instructions: match.sync
.type = b32 b64
match.any.sync.type             d, a, membermask
match.all.sync.type             d{|p}, a, membermask

9.7.13.11 Parallel Synchronization and Communication Instructions: activemask
activemask.b32                  d

9.7.13.12 Parallel Synchronization and Communication Instructions: redux.sync
.op = add min max
.order = min max
.type = u32 s32
.bool = and or xor
redux.sync.op.type              d, a, membermask
redux.sync.bool.b32             d, a, membermask
redux.sync.order{.abs}{.NaN}.f32 d, a, membermask

9.7.13.13 Parallel Synchronization and Communication Instructions: griddepcontrol
.action = launch_dependents wait
griddepcontrol.action

9.7.13.14 Parallel Synchronization and Communication Instructions: elect.sync
elect.sync                      d|p, membermask

9.7.13.16 Parallel Synchronization and Communication Instructions: tensormap.cp_fenceproxy
tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.scope.sync.aligned \
    [dst], [src], size

9.7.13.17 Parallel Synchronization and Communication Instructions: clusterlaunchcontrol.try_cancel
.cta = shared::cta
.bytes = mbarrier::complete_tx::bytes
.all = multicast::cluster::all
clusterlaunchcontrol.try_cancel.async{.cta}.bytes{.all}.b128 [a], [mbar]

9.7.13.18 Parallel Synchronization and Communication Instructions: clusterlaunchcontrol.query_cancel
.axis = get_first_ctaid::x get_first_ctaid::y get_first_ctaid::z
clusterlaunchcontrol.query_cancel.is_canceled.pred.b128     p, response
clusterlaunchcontrol.query_cancel.get_first_ctaid{.v4}.b32.b128 ids, response
clusterlaunchcontrol.query_cancel.axis.b32.b128             id, response
"""
