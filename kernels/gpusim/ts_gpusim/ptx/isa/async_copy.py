# SPDX-License-Identifier: MIT
"""Asynchronous copies, of bytes and of tensors, and the maps of tensors (PTX ISA 9.7.9.25-26)."""

TABLE = """
.hint = L2::cache_hint
.dim = 1d 2d 3d 4d 5d
.cta = shared::cta
.cluster = shared::cluster
.bytes = mbarrier::complete_tx::bytes
.op = and or xor add inc dec min max

9.7.9.25.3.1 Data Movement and Conversion Instructions: cp.async
.cache = ca cg
.smem = shared shared::cta
.prefetch = L2::64B L2::128B L2::256B
cp.async.cache.smem.global{.hint}{.prefetch}    [dst], [src], size{, source}{, policy}

9.7.9.25.3.2 Data Movement and Conversion Instructions: cp.async.commit_group
cp.async.commit_group

9.7.9.25.3.3 Data Movement and Conversion Instructions: cp.async.wait_group, cp.async.wait_all
cp.async.wait_group     n
cp.async.wait_all

9.7.9.25.4.1 Data Movement and Conversion Instructions: cp.async.bulk
.multicast = multicast::cluster
cp.async.bulk.cta.global.bytes{.hint}     [dst], [src], size, [mbar]{, policy}
cp.async.bulk.cluster.global.bytes{.multicast}{.hint} [dst], [src], size, [mbar]{, mask}{, policy}
cp.async.bulk.cluster.cta.bytes                     [dst], [src], size, [mbar]
cp.async.bulk.global.cta.bulk_group{.hint}{.cp_mask} [dst], [src], size{, policy}{, mask}

9.7.9.25.4.2 Data Movement and Conversion Instructions: cp.reduce.async.bulk
.bool = and or xor
.step = inc dec
.order = min max
.bits = b32 b64
.word = u32 s32
.add_type = u32 s32 u64
.far_order = u32 s32 u64 s64 f16 bf16
.far_add = u32 s32 u64 f32 f64
.half = f16 bf16
cp.reduce.async.bulk.cluster.cta.bytes.bool.b32         [dst], [src], size, [mbar]
cp.reduce.async.bulk.cluster.cta.bytes.step.u32         [dst], [src], size, [mbar]
cp.reduce.async.bulk.cluster.cta.bytes.order.word       [dst], [src], size, [mbar]
cp.reduce.async.bulk.cluster.cta.bytes.add.add_type     [dst], [src], size, [mbar]
cp.reduce.async.bulk.global.cta.bulk_group{.hint}.bool.bits         [dst], [src], size{, policy}
cp.reduce.async.bulk.global.cta.bulk_group{.hint}.step.u32          [dst], [src], size{, policy}
cp.reduce.async.bulk.global.cta.bulk_group{.hint}.order.far_order   [dst], [src], size{, policy}
cp.reduce.async.bulk.global.cta.bulk_group{.hint}.add.far_add       [dst], [src], size{, policy}
cp.reduce.async.bulk.global.cta.bulk_group{.hint}.add.noftz.half [dst], [src], size{, policy}

9.7.9.25.4.3 Data Movement and Conversion Instructions: cp.async.bulk.prefetch
cp.async.bulk.prefetch.L2.global{.hint}             [src], size{, policy}

9.7.9.25.5.2 Data Movement and Conversion Instructions: cp.async.bulk.tensor
.mode = tile tile::gather4 im2col im2col::w im2col::w::128
.store_mode = tile tile::scatter4 im2col_no_offs
.multicast = multicast::cluster
.cta_group = cta_group::1 cta_group::2
cp.async.bulk.tensor.dim.cta.global{.mode}.bytes{.cta_group}{.hint} \
    [dst], [map], [mbar]{, im2col}{, policy}
cp.async.bulk.tensor.dim.cluster.global{.mode}.bytes{.multicast}{.cta_group}{.hint} \
    [dst], [map], [mbar]{, im2col}{, mask}{, policy}
cp.async.bulk.tensor.dim.global.cta{.store_mode}.bulk_group{.hint} [map], [src]{, policy}

9.7.9.25.5.3 Data Movement and Conversion Instructions: cp.reduce.async.bulk.tensor
.mode = tile im2col_no_offs
cp.reduce.async.bulk.tensor.dim.global.cta.op{.mode}.bulk_group{.hint} [map], [src]{, policy}

9.7.9.25.5.4 Data Movement and Conversion Instructions: cp.async.bulk.prefetch.tensor
.mode = tile tile::gather4 im2col im2col::w im2col::w::128
cp.async.bulk.prefetch.tensor.dim.L2.global{.mode}{.hint} [map]{, im2col}{, policy}

9.7.9.25.6.1 Data Movement and Conversion Instructions: cp.async.bulk.commit_group
cp.async.bulk.commit_group

9.7.9.25.6.2 Data Movement and Conversion Instructions: cp.async.bulk.wait_group
cp.async.bulk.wait_group{.read} n

9.7.9.26 Data Movement and Conversion Instructions: tensormap.replace
.field = rank elemtype interleave_layout swizzle_mode swizzle_atomicity fill_mode
.dim_field = box_dim global_dim element_stride
.space = global shared::cta
tensormap.replace.tile.field{.space}.b1024.b32              [a], value
tensormap.replace.tile.global_address{.space}.b1024.b64     [a], value
tensormap.replace.tile.dim_field{.space}.b1024.b32          [a], ordinal, value
tensormap.replace.tile.global_stride{.space}.b1024.b64      [a], ordinal, value

9.7.13.15.15 Parallel Synchronization and Communication Instructions: cp.async.mbarrier.arrive
.smem = shared shared::cta
cp.async.mbarrier.arrive{.noinc}{.smem}.b64         [mbar]
"""
