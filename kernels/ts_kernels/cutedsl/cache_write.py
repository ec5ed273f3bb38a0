# SPDX-License-Identifier: MIT
"""Norm, rotate, convert and scatter: a token's entry of the latent cache, in one kernel.

    one warp a token; a lane has every 32nd vector of 8 elements

    latent [T, rank]    -> registers -> sum of squares (shuffles) -> * weight -> kv[page, at, :rank]
    rope_key [T, rope]  -> registers -> pairs turned by cos, sin ->              kv[page, at, rank:]

Nothing is in shared memory, and no warp waits for another. Of memory it reads latent, key, weight
and one row of cosines and sines a token, and it writes the entry: that is its time. Sums are in
fp32. A bf16 entry is rounded as the unfused ops round it, an fp8 one (e4m3) is that times
`1 / scale`, rounded again and saturated at 448: both caches hold roundings of the same value.
"""

from __future__ import annotations

from typing import Any

import cutlass
import cutlass.cute as cute
from cutlass import BFloat16, Float8E4M3FN, Float32, Int32, Int64
from cutlass.cute.runtime import make_fake_compact_tensor, make_fake_stream, make_fake_tensor

WARPS = 4  # of a CTA, a token each
LANES = 32
VECTOR = 8  # elements that a lane loads at once: 16 bytes of bf16
LARGEST_E4M3 = 448.0


class CacheWrite:
    """kv: [pages, page_size, rank + rope]. rank: a multiple of 256; rope: of 64."""

    def __init__(self, rank: int, rope: int, eps: float) -> None:
        self.rank = rank
        self.rope = rope
        self.eps = eps

    @cute.jit
    def __call__(
        self,
        kv: cute.Tensor,
        latent: cute.Tensor,
        rope_key: cute.Tensor,
        weight: cute.Tensor,
        cos_sin: cute.Tensor,
        positions: cute.Tensor,
        cache_index: cute.Tensor,
        inverse_scale: Float32,
        stream: Any,
    ) -> None:
        self.kernel(
            kv, latent, rope_key, weight, cos_sin, positions, cache_index, inverse_scale
        ).launch(
            grid=[cute.ceil_div(latent.shape[0], WARPS), 1, 1],
            block=[WARPS * LANES, 1, 1],
            stream=stream,
        )

    @cute.kernel
    def kernel(
        self,
        kv: cute.Tensor,
        latent: cute.Tensor,
        rope_key: cute.Tensor,
        weight: cute.Tensor,
        cos_sin: cute.Tensor,
        positions: cute.Tensor,
        cache_index: cute.Tensor,
        inverse_scale: Float32,
    ) -> None:
        thread, _, _ = cute.arch.thread_idx()
        block, _, _ = cute.arch.block_idx()
        lane = thread % LANES
        token = block * WARPS + thread // LANES
        if token < latent.shape[0]:
            place = cache_index[token]
            page_size = Int64(kv.shape[1])
            entry = kv[Int32(place // page_size), Int32(place % page_size), None]
            self.write_latent(entry, latent[token, None], weight, lane, inverse_scale)
            row = cos_sin[Int32(positions[token]), None]
            self.write_rope_key(entry, rope_key[token, None], row, lane, inverse_scale)

    @cute.jit
    def write_latent(
        self,
        entry: cute.Tensor,
        latent: cute.Tensor,
        weight: cute.Tensor,
        lane: Int32,
        inverse_scale: Float32,
    ) -> None:
        vectors = cutlass.const_expr(self.rank // (LANES * VECTOR))
        source = cute.zipped_divide(latent, (VECTOR,))
        scales = cute.zipped_divide(weight, (VECTOR,))
        target = cute.zipped_divide(entry, (VECTOR,))
        value = cute.make_rmem_tensor((VECTOR, vectors), BFloat16)
        squares = Float32(0.0)
        for i in cutlass.range_constexpr(vectors):
            cute.autovec_copy(source[None, lane + i * LANES], value[None, i])
            for j in cutlass.range_constexpr(VECTOR):
                squares += Float32(value[j, i]) * Float32(value[j, i])
        for distance in (16, 8, 4, 2, 1):
            squares += cute.arch.shuffle_sync_bfly(squares, distance)
        factor = cute.math.rsqrt(squares / self.rank + self.eps)
        for i in cutlass.range_constexpr(vectors):
            scale = cute.make_rmem_tensor((VECTOR,), BFloat16)
            cute.autovec_copy(scales[None, lane + i * LANES], scale)
            normed = cute.make_rmem_tensor((VECTOR,), Float32)
            for j in cutlass.range_constexpr(VECTOR):
                normed[j] = Float32(value[j, i]) * factor * Float32(scale[j])
            self.store(normed, target[None, lane + i * LANES], inverse_scale)

    @cute.jit
    def write_rope_key(
        self,
        entry: cute.Tensor,
        key: cute.Tensor,
        cos_sin: cute.Tensor,
        lane: Int32,
        inverse_scale: Float32,
    ) -> None:
        half = cutlass.const_expr(self.rope // 2)
        source = cute.zipped_divide(key, (2,))
        target = cute.zipped_divide(entry, (2,))
        for i in cutlass.range_constexpr(half // LANES):
            pair = lane + i * LANES
            value = cute.make_rmem_tensor((2,), BFloat16)
            cute.autovec_copy(source[None, pair], value)
            a, b = Float32(value[0]), Float32(value[1])
            cos, sin = cos_sin[pair], cos_sin[half + pair]
            turned = cute.make_rmem_tensor((2,), Float32)
            turned[0] = a * cos - b * sin
            turned[1] = a * sin + b * cos
            self.store(turned, target[None, self.rank // 2 + pair], inverse_scale)

    @cute.jit
    def store(self, values: cute.Tensor, target: cute.Tensor, inverse_scale: Float32) -> None:
        out = cute.make_rmem_tensor_like(values, target.element_type)
        if cutlass.const_expr(target.element_type is Float8E4M3FN):
            for j in cutlass.range_constexpr(cute.size(values)):
                values[j] = Float32(BFloat16(values[j])) * inverse_scale
                values[j] = cute.arch.fmin(cute.arch.fmax(values[j], -LARGEST_E4M3), LARGEST_E4M3)
        out.store(values.load().to(target.element_type))
        cute.autovec_copy(out, target)


def compiled(rank: int, rope: int, eps: float, fp8: bool) -> Any:
    """The kernel for any number of tokens, pages and any page size."""
    tokens, pages, page_size = (cute.sym_int() for _ in range(3))
    rows, keys = (cute.sym_int64(divisibility=VECTOR) for _ in range(2))  # strides of slices
    dtype = Float8E4M3FN if fp8 else BFloat16
    aligned = {"assumed_align": 16}
    page = cute.sym_int64(divisibility=16)
    return cute.compile(
        CacheWrite(rank, rope, eps),
        make_fake_tensor(dtype, (pages, page_size, rank + rope), (page, rank + rope, 1), **aligned),
        make_fake_tensor(BFloat16, (tokens, rank), (rows, 1), **aligned),
        make_fake_tensor(BFloat16, (tokens, rope), (keys, 1), **aligned),
        make_fake_compact_tensor(BFloat16, (rank,), **aligned),
        make_fake_compact_tensor(Float32, (cute.sym_int(), rope), stride_order=(1, 0)),
        make_fake_compact_tensor(Int64, (tokens,)),
        make_fake_compact_tensor(Int64, (tokens,)),
        Float32(1.0),
        make_fake_stream(use_tvm_ffi_env_stream=True),
        options="--enable-tvm-ffi",
    )
