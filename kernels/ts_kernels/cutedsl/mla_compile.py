# SPDX-License-Identifier: MIT
"""MLA decode, compiled: the kernel of the architecture, the merge, and how tensors reach them."""

from __future__ import annotations

from typing import Any

import cutlass
import cutlass.cute as cute
from cutlass import Float32, Int32
from cutlass.cute.runtime import make_fake_stream, make_fake_tensor

from ts_kernels.cutedsl.merge import Merge
from ts_kernels.cutedsl.mla_decode_sm100 import LATENT, TILE, WIDTH, MlaDecode


class DecodeAndMerge:
    """Two launches; the second may begin while the first still runs (PDL)."""

    def __init__(self, heads: int, tokens: int, page_size: int, fp8: bool) -> None:
        dtype = cutlass.Float8E4M3FN if fp8 else cutlass.BFloat16
        self.decode = MlaDecode(heads, tokens, page_size, dtype)
        self.merge = Merge(self.decode.rows, self.decode.n, TILE)

    @cute.jit
    def __call__(
        self,
        mQ: cute.Tensor,
        mKV: cute.Tensor,
        mTable: cute.Tensor,
        mSlots: cute.Tensor,
        mLens: cute.Tensor,
        mOut: cute.Tensor,
        mLse: cute.Tensor,
        mPartial: cute.Tensor,
        mPartialLse: cute.Tensor,
        scale: Float32,
        out_scale: Float32,
        ctas: Int32,
        stream,
    ):
        self.decode.launch(
            mQ,
            mKV,
            mTable,
            mSlots,
            mLens,
            mOut,
            mLse,
            mPartial,
            mPartialLse,
            scale,
            out_scale,
            ctas,
            stream,
        )
        self.merge.launch(mLens, mPartial, mPartialLse, mOut, mLse, ctas, stream)


def compile_decode(
    heads: int, tokens: int, page_size: int, fp8: bool = False, options: str = ""
) -> Any:
    """A function of the tensors, the scales of scores and results, and the number of CTAs.

    fp8: queries and KV are e4m3, else bf16.

    Without `--gpu-arch=...` among the options, for the architecture of the device.
    """
    kernel = DecodeAndMerge(heads, tokens, page_size, fp8)
    rows, n, dtype = kernel.decode.rows, kernel.decode.n, kernel.decode.dtype
    requests, places = cute.sym_int32(), cute.sym_int32()
    bf16, f32, i32 = cutlass.BFloat16, cutlass.Float32, cutlass.Int32
    return cute.compile(
        kernel,
        _fake(dtype, (requests, rows, WIDTH), (rows * WIDTH, WIDTH, 1)),
        _fake(
            dtype,
            (cute.sym_int32(), page_size, WIDTH),
            (cute.sym_int64(divisibility=16), WIDTH, 1),
        ),
        _fake(i32, (cute.sym_int32(), cute.sym_int32()), (cute.sym_int64(), 1), align=4),
        _fake(i32, (requests,), (1,), align=4),
        _fake(i32, (requests,), (1,), align=4),
        _fake(bf16, (requests, rows, LATENT), (rows * LATENT, LATENT, 1)),
        _fake(f32, (requests, rows), (rows, 1), align=4),
        _fake(f32, (places, n, LATENT), (n * LATENT, LATENT, 1)),
        _fake(f32, (places, n), (n, 1), align=4),
        Float32(1.0),
        Float32(1.0),
        Int32(1),
        make_fake_stream(use_tvm_ffi_env_stream=True),
        options=f"--enable-tvm-ffi {options}",
    )


def _fake(dtype: Any, shape: tuple[Any, ...], strides: tuple[Any, ...], align: int = 16) -> Any:
    return make_fake_tensor(dtype, shape, strides, assumed_align=align)
