# SPDX-License-Identifier: MIT
"""What a Hopper GPU and the software GPU both compute: kernels for sm_90a, with their tolerances.

Instructions one by one on plain PTX, then whole kernels: a GEMM of ours, and public ones.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import ts_gpusim
from gpusim_kernels import floats, integers
from gpusim_operands import STEP, operand
from gpusim_tensor_map import tensor_map
from recording import ARCH, SMS, Recorder
from saved_launch import SavedLaunch, Tolerance

HEADER = f".version 8.8\n.target {ARCH}\n.address_size 64\n"
EXACT = Tolerance()


@dataclass(frozen=True)
class Case:
    run: Callable[[], None]  # on a device
    tolerance: Tolerance = EXACT


def record(name: str) -> list[SavedLaunch]:
    """The launches of a case, executed by the software GPU."""
    recorder = Recorder(name, CASES[name].tolerance)
    with ts_gpusim.device(ARCH, sms=SMS, execute=recorder):
        CASES[name].run()
    return recorder.saved


# Instructions: each thread has %a, %b and %c, and stores what `lines` leave in %d0, %d1, ...


def on_words(*lines: str, sources: list[np.ndarray], dtype: object = np.uint32) -> None:
    """`lines` may use %w (predicate), %x<4> (32 bits), %y<4> (64 bits), %h<4> (16 bits), too."""
    count = sources[0].size
    out = np.zeros((len(lines), count), dtype)
    body = "".join(f"    {line}\n" for line in lines)
    stores = "".join(
        f"    st.global.u32 [%out+{4 * count * i}], %d{i};\n" for i in range(len(lines))
    )
    loads = "".join(
        f"    ld.param.u64 %in, [p{i}];\n    mad.wide.u32 %in, %t, 4, %in;\n"
        f"    ld.global.u32 %{name}, [%in];\n"
        for i, name in enumerate("abc"[: len(sources)])
    )
    parameters = ", ".join(f".param .u64 p{i}" for i in range(len(sources)))
    ptx = f"""{HEADER}
.visible .entry words({parameters}, .param .u64 out) {{
    .reg .pred %w;
    .reg .b16 %h<4>;
    .reg .b32 %t, %u, %a, %b, %c, %d<{len(lines)}>, %x<4>;
    .reg .b64 %in, %out, %y<4>;
    mov.u32 %t, %tid.x;
    mov.u32 %u, %ctaid.x;
    mad.lo.u32 %t, %u, 128, %t;
    ld.param.u64 %out, [out];
    mad.wide.u32 %out, %t, 4, %out;
{loads}{body}{stores}
    ret;
}}
"""
    grid = (count // 128, 1, 1)
    ts_gpusim.launch_ptx(ptx, "words", grid, (128, 1, 1), [*sources, out])


def float_sources() -> list[np.ndarray]:
    return [floats(np.float32, seed) for seed in (1, 2, 3)]


def exact_floats() -> None:
    lines = [
        f"{operation}.{rounding}{ftz}.f32 {{}}, {operands};"
        for rounding in ("rn", "rz", "rm", "rp")
        for ftz in ("", ".ftz")
        for operation, operands in (
            ("add", "%a, %b"),
            ("mul", "%a, %b"),
            ("fma", "%a, %b, %c"),
            ("div", "%a, %b"),
            ("sqrt", "%a"),
            ("rcp", "%a"),
        )
    ]
    lines += ["min.f32 {}, %a, %b;", "max.ftz.f32 {}, %a, %b;", "max.NaN.f32 {}, %a, %b;"]
    numbered = [line.format(f"%d{i}") for i, line in enumerate(lines)]
    on_words(*numbered, sources=float_sources(), dtype=np.float32)


def exact_conversions() -> None:
    lines = [
        "cvt.rn.bf16x2.f32 {}, %a, %b;",
        "cvt.rz.bf16x2.f32 {}, %a, %b;",
        "cvt.rn.f16x2.f32 {}, %a, %b;",
        "cvt.rna.tf32.f32 {}, %a;",
        "cvt.rni.s32.f32 {}, %a;",
        "cvt.rzi.u32.f32 {}, %a;",
        "cvt.rpi.f32.f32 {}, %a;",
        "cvt.rn.f32.s32 {}, %a;",
        "cvt.rz.f32.u32 {}, %a;",
        "cvt.rn.satfinite.e4m3x2.f32 %h0, %a, %b; cvt.u32.u16 {}, %h0;",
        "cvt.rn.satfinite.e5m2x2.f32 %h0, %a, %b; cvt.u32.u16 {}, %h0;",
        "cvt.u16.u32 %h0, %a; cvt.rn.f16x2.e4m3x2 {}, %h0;",
        "cvt.u16.u32 %h0, %a; cvt.rn.f16x2.e5m2x2 {}, %h0;",
        "fma.rn.f16x2 {}, %a, %b, %c;",
        "fma.rn.bf16x2 {}, %a, %b, %c;",
    ]
    numbered = [line.format(f"%d{i}") for i, line in enumerate(lines)]
    on_words(*numbered, sources=float_sources())


def exact_integers() -> None:
    lines = [
        "mul.hi.s32 {}, %a, %b;",
        "mul.hi.u32 {}, %a, %b;",
        "mad.lo.s32 {}, %a, %b, %c;",
        "shf.l.wrap.b32 {}, %a, %b, %c;",
        "shf.r.clamp.b32 {}, %a, %b, %c;",
        "shl.b32 {}, %a, %b;",
        "shr.s32 {}, %a, %b;",
        "bfe.u32 {}, %a, %b, %c;",
        "bfe.s32 {}, %a, %b, %c;",
        "bfi.b32 {}, %a, %b, %c, 7;",
        "prmt.b32 {}, %a, %b, %c;",
        "lop3.b32 {}, %a, %b, %c, 0x96;",
        "popc.b32 {}, %a;",
        "clz.b32 {}, %a;",
        "brev.b32 {}, %a;",
        "bfind.u32 {}, %a;",
        "sad.s32 {}, %a, %b, %c;",
        "add.sat.s32 {}, %a, %b;",
        "div.s32 {}, %a, 7;",
        "rem.u32 {}, %a, 1000;",
    ]
    numbered = [line.format(f"%d{i}") for i, line in enumerate(lines)]
    on_words(*numbered, sources=[integers(np.uint32, seed) for seed in (4, 5, 6)])


def exact_warp() -> None:
    lines = [
        *[f"redux.sync.{op}.{type_} {{}}, %a, -1;" for op, type_ in (
            ("add", "u32"), ("add", "s32"), ("min", "s32"), ("max", "s32"), ("min", "u32"),
            ("max", "u32"), ("and", "b32"), ("or", "b32"), ("xor", "b32"))],
        "and.b32 %x0, %b, 31; shfl.sync.idx.b32 {}, %a, %x0, 31, -1;",
        "shfl.sync.up.b32 {}, %a, 3, 0, -1;",
        "shfl.sync.down.b32 {}, %a, 5, 0x101f, -1;",
        "shfl.sync.bfly.b32 {}, %a, 7, 31, -1;",
        "setp.lt.s32 %w, %a, 0; vote.sync.ballot.b32 {}, %w, -1;",
        "and.b32 %x0, %b, 3; match.any.sync.b32 {}, %x0, -1;",
    ]  # fmt: skip
    numbered = [line.format(f"%d{i}") for i, line in enumerate(lines)]
    on_words(*numbered, sources=[integers(np.uint32, seed) for seed in (7, 8)])


def approximate(instruction: str, low: float, high: float) -> Callable[[], None]:
    def run() -> None:
        numbers = np.random.default_rng(9).uniform(low, high, 4096).astype(np.float32)
        on_words(f"{instruction} %d0, %a;", sources=[numbers], dtype=np.float32)

    return run


# PTX ISA, "Floating Point Instructions": the greatest error of each, and our last bit.
_LAST_BIT = 2.0**-23
APPROXIMATE = {
    "ex2.approx.ftz.f32": (-20, 20, 0, 2**-22, "2 ulp"),
    "lg2.approx.f32": (0.01, 100, 2**-22, 2**-22, "2^-22, absolute from 0.5 to 2"),
    "rcp.approx.ftz.f32": (0.01, 100, 0, 2**-23, "1 ulp"),
    "sqrt.approx.f32": (0.01, 100, 0, 2**-23, "relative 2^-23"),
    "rsqrt.approx.f32": (0.01, 100, 0, 2**-22.9, "relative 2^-22.9"),
    "sin.approx.f32": (-3.1, 3.1, 2**-20.5, 0, "absolute 2^-20.5"),
    "cos.approx.f32": (-3.1, 3.1, 2**-20.5, 0, "absolute 2^-20.5"),
    "tanh.approx.f32": (-4, 4, 0, 2**-11, "relative 2^-11"),
}


# Barriers and copies


def mbarrier_phases() -> None:
    """One thread: after each step, whether the phases of parity 0 and 1 have ended."""
    steps = [
        "",
        "mbarrier.arrive.shared.b64 %state, [%bar];",
        "mbarrier.arrive.shared.b64 %state, [%bar];",
        "mbarrier.arrive.expect_tx.shared.b64 %state, [%bar], 32;",
        "mbarrier.complete_tx.shared.b64 [%bar], 16;",
        "mbarrier.arrive.shared.b64 %state, [%bar];",
        "mbarrier.complete_tx.shared.b64 [%bar], 16;",
        "mbarrier.arrive.shared.b64 %state, [%bar];",
        "mbarrier.arrive.shared.b64 %state, [%bar];",
    ]
    code = ""
    for i, step in enumerate(steps):
        code += f"    {step}\n"
        for parity in (0, 1):
            code += f"""
    mbarrier.test_wait.parity.shared.b64 %done, [%bar], {parity};
    selp.u32 %value, 1, 0, %done;
    st.global.u32 [%out+{8 * i + 4 * parity}], %value;
"""
    ptx = f"""{HEADER}
.visible .entry phases(.param .u64 out) {{
    .shared .align 8 .b64 bar;
    .reg .pred %done;
    .reg .b32 %bar, %value;
    .reg .b64 %out, %state;
    ld.param.u64 %out, [out];
    mov.u32 %bar, bar;
    mbarrier.init.shared.b64 [%bar], 2;
{code}
    ret;
}}
"""
    out = np.zeros((len(steps), 2), np.uint32)
    ts_gpusim.launch_ptx(ptx, "phases", (1, 1, 1), (1, 1, 1), [out])


def bulk_copy() -> None:
    """Global to shared to another CTA's shared to global, each part with its mbarrier."""
    ptx = f"""{HEADER}
.visible .entry bulk(.param .u64 in, .param .u64 out) {{
    .shared .align 128 .b8 box[2048];
    .shared .align 8 .b64 bar[2];
    .reg .pred %done;
    .reg .b32 %rank, %other, %box, %bar, %there, %its_bar;
    .reg .b64 %in, %out;
    mov.u32 %rank, %cluster_ctarank;
    xor.b32 %other, %rank, 1;
    ld.param.u64 %in, [in];
    mad.wide.u32 %in, %rank, 1024, %in;
    ld.param.u64 %out, [out];
    mad.wide.u32 %out, %rank, 1024, %out;
    mov.u32 %box, box;
    mov.u32 %bar, bar;
    mbarrier.init.shared.b64 [%bar], 1;
    mbarrier.init.shared.b64 [%bar+8], 1;
    mbarrier.arrive.expect_tx.shared.b64 _, [%bar], 1024;
    mbarrier.arrive.expect_tx.shared.b64 _, [%bar+8], 1024;
    fence.mbarrier_init.release.cluster;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%box], [%in], 1024, [%bar];
FIRST:
    mbarrier.try_wait.parity.shared.b64 %done, [%bar], 0;
    @!%done bra FIRST;
    add.u32 %there, %box, 1024;
    mapa.shared::cluster.u32 %there, %there, %other;
    add.u32 %its_bar, %bar, 8;
    mapa.shared::cluster.u32 %its_bar, %its_bar, %other;
    cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%there], [%box], 1024, [%its_bar];
SECOND:
    mbarrier.try_wait.parity.acquire.cluster.shared.b64 %done, [%bar+8], 0;
    @!%done bra SECOND;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%box+1024], 1024;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    ret;
}}
"""  # noqa: E501 - an instruction is a line
    data = np.random.default_rng(10).integers(0, 256, 2048, np.uint8)
    arguments = [data, np.zeros_like(data)]
    ts_gpusim.launch_ptx(ptx, "bulk", (2, 1, 1), (1, 1, 1), arguments, cluster=(2, 1, 1))


def tensor_copy(swizzle: int) -> Callable[[], None]:
    """A box that ends outside of its tensor, as it lies in shared memory; then stored again."""

    def run() -> None:
        random = np.random.default_rng(swizzle)
        columns = max(swizzle, 32) // 2
        source = random.integers(0, 1 << 16, (5, 40, 2 * columns), np.uint16)[:, :, : columns + 3]
        target = np.zeros((5, 40, 2 * columns), np.uint16)[:, :, : columns + 3]
        box = (2, 24, columns)
        size = 2 * int(np.prod(box))
        image = np.zeros(size, np.uint8)
        ptx = f"""{HEADER}
.visible .entry tensor(.param .align 64 .b8 from[128], .param .align 64 .b8 to[128],
                       .param .u64 image, .param .u64 source, .param .u64 target) {{
    .shared .align 1024 .b8 box[{size}];
    .shared .align 8 .b64 bar;
    .reg .pred %done, %first;
    .reg .b32 %t, %at, %box, %bar, %value, %c<3>;
    .reg .b64 %from, %to, %image;
    mov.u32 %t, %tid.x;
    setp.eq.u32 %first, %t, 0;
    mov.u32 %box, box;
    mov.u32 %bar, bar;
    mov.b64 %from, from;
    cvta.param.u64 %from, %from;
    mov.b64 %to, to;
    cvta.param.u64 %to, %to;
    mov.u32 %c0, 4;
    mov.u32 %c1, 20;
    mov.u32 %c2, 4;
    @%first mbarrier.init.shared.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%first mbarrier.arrive.expect_tx.shared.b64 _, [%bar], {size};
    @%first cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%box], [%from, {{%c0, %c1, %c2}}], [%bar];
WAIT:
    mbarrier.try_wait.parity.shared.b64 %done, [%bar], 0;
    @!%done bra WAIT;
    ld.param.u64 %image, [image];
    mad.wide.u32 %image, %t, 4, %image;
    shl.b32 %at, %t, 2;
    add.u32 %at, %at, %box;
COPY:
    ld.shared.u32 %value, [%at];
    st.global.u32 [%image], %value;
    add.u64 %image, %image, 512;
    add.u32 %at, %at, 512;
    sub.u32 %value, %at, %box;
    setp.lt.u32 %done, %value, {size};
    @%done bra COPY;
    @%first cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%to, {{%c0, %c1, %c2}}], [%box];
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
    ret;
}}
"""  # noqa: E501
        maps = [tensor_map(tensor, "u16", box, swizzle) for tensor in (source, target)]
        arguments = [*maps, image, source, target]
        ts_gpusim.launch_ptx(ptx, "tensor", (1, 1, 1), (128, 1, 1), arguments)

    return run


# wgmma


@dataclass(frozen=True)
class Wgmma:
    """D (64 x n) += A B^T, both in shared memory, over 2 instructions' depth."""

    n: int
    type: str
    result: str = "f32"
    swizzle: int = 128
    mn_major: bool = False

    def __call__(self) -> None:
        a, b = (
            operand(self._bits(rows, seed), self.swizzle, self.mn_major)
            for rows, seed in ((64, 1), (self.n, 2))
        )
        image = np.concatenate([a.image, b.image])
        parameters = [struct.pack("<Q", a.wgmma(step, 0)) for step in range(2)]
        parameters += [struct.pack("<Q", b.wgmma(step, a.image.size)) for step in range(2)]
        count = self.n // (4 if self.result == "f16" else 2)
        types = {"f32": np.float32, "f16": np.float16, "s32": np.int32}
        width = types[self.result]().itemsize
        out = np.random.default_rng(3).standard_normal((128, 4 * count // width)) * 4
        out = out.astype(types[self.result])
        ts_gpusim.launch_ptx(
            self._ptx(count, image.size), "wgmma", (1, 1, 1), (128, 1, 1), [image, out, *parameters]
        )

    def _bits(self, rows: int, seed: int) -> np.ndarray:
        random = torch.Generator().manual_seed(seed)
        if self.type in ("s8", "u8"):
            numbers = torch.randint(0, 256, (rows, 2 * STEP), generator=random)
            return numbers.numpy().astype(np.uint8)
        dtype = {"f16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32,
                 "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}[self.type]  # fmt: skip
        numbers = torch.randn(rows, 2 * STEP // dtype.itemsize, generator=random).to(dtype)
        return numbers.view(torch.uint8).numpy().view(f"u{dtype.itemsize}")

    def _ptx(self, count: int, size: int) -> str:
        d = "{" + ", ".join(f"%r{i}" for i in range(count)) + "}"
        depth = {"f16": 16, "bf16": 16, "tf32": 8}.get(self.type, 32)
        shape = f"m64n{self.n}k{depth}.{self.result}.{self.type}.{self.type}"
        constants = "" if self.result == "s32" else ", 1, 1"
        if self.type in ("f16", "bf16"):
            constants += f", {int(self.mn_major)}, {int(self.mn_major)}"
        loads = "".join(f"    ld.global.u32 %r{i}, [%out+{4 * i}];\n" for i in range(count))
        stores = "".join(f"    st.global.u32 [%out+{4 * i}], %r{i};\n" for i in range(count))
        steps = "".join(
            f"""
    ld.param.u64 %a, [a{step}];
    add.u64 %a, %a, %base;
    ld.param.u64 %b, [b{step}];
    add.u64 %b, %b, %base;
    wgmma.mma_async.sync.aligned.{shape} {d}, %a, %b, %on{constants};
"""
            for step in range(2)
        )
        return f"""{HEADER}
.visible .entry wgmma(.param .u64 image, .param .u64 out, .param .u64 a0, .param .u64 a1,
                      .param .u64 b0, .param .u64 b1) {{
    .shared .align 1024 .b8 box[{size}];
    .reg .pred %more, %on;
    .reg .b32 %t, %at, %box, %end, %value, %r<{count}>;
    .reg .b64 %image, %out, %base, %a, %b;
    mov.u32 %t, %tid.x;
    mov.u32 %box, box;
    ld.param.u64 %image, [image];
    mad.wide.u32 %image, %t, 4, %image;
    shl.b32 %at, %t, 2;
    add.u32 %at, %at, %box;
    add.u32 %end, %box, {size};
COPY:
    ld.global.u32 %value, [%image];
    st.shared.u32 [%at], %value;
    add.u64 %image, %image, 512;
    add.u32 %at, %at, 512;
    setp.lt.u32 %more, %at, %end;
    @%more bra COPY;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    cvt.u64.u32 %base, %box;
    shr.u64 %base, %base, 4;
    setp.eq.u32 %on, %t, %t;
    ld.param.u64 %out, [out];
    mad.wide.u32 %out, %t, {4 * count}, %out;
{loads}
    wgmma.fence.sync.aligned;
{steps}
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
{stores}
    ret;
}}
"""


_SUMS = "up to 32 terms near 1, summed in another order and perhaps cut, not rounded"
WGMMAS = {
    **{f"bf16-n{n}": (Wgmma(n, "bf16"), Tolerance(1e-4, 1e-5, _SUMS)) for n in (8, 64, 256)},
    **{
        f"bf16-swizzle{swizzle}{'-mn' if mn else ''}": (
            Wgmma(64, "bf16", swizzle=swizzle, mn_major=mn),
            Tolerance(1e-4, 1e-5, _SUMS),
        )
        for swizzle in (16, 32, 64, 128)
        for mn in (False, True)
    },
    "f16": (Wgmma(64, "f16"), Tolerance(1e-4, 1e-5, _SUMS)),
    "f16-f16": (Wgmma(64, "f16", "f16"), Tolerance(2e-2, 2**-9, "sums in halves")),
    "tf32": (Wgmma(64, "tf32"), Tolerance(1e-4, 1e-5, _SUMS)),
    "e4m3": (Wgmma(64, "e4m3"), Tolerance(2e-2, 2**-9, "fp8 sums keep some 14 bits on a chip")),
    "e5m2": (Wgmma(64, "e5m2"), Tolerance(2e-2, 2**-9, "fp8 sums keep some 14 bits on a chip")),
    "s8": (Wgmma(64, "s8", "s32"), EXACT),
    "u8": (Wgmma(128, "u8", "s32"), EXACT),
}


# Whole kernels


def own_gemm() -> None:
    import gpusim_hopper_gemm

    generator = torch.Generator().manual_seed(11)
    a = torch.randn(128, 256, generator=generator).bfloat16()
    b = torch.randn(192, 256, generator=generator).bfloat16()
    gpusim_hopper_gemm.compiled(b_mn_major=False)(a, b, torch.zeros(128, 192))


def public_gemm() -> None:
    from gpusim_quack import gemm, on

    generator = torch.Generator().manual_seed(12)
    a = torch.randn(1, 512, 256, generator=generator).bfloat16()
    b = torch.randn(1, 256, 256, generator=generator).bfloat16()
    bias = torch.randn(1, 256, generator=generator)
    with on(ARCH):
        d = torch.zeros(1, 512, 256, dtype=torch.bfloat16)
        gemm(a, b, d, None, None, 128, 128, 2, 1, pingpong=True, rowvec_bias=bias)


def public_softmax() -> None:
    from gpusim_quack import on, softmax_fwd

    x = torch.randn(2, 32768, generator=torch.Generator().manual_seed(13)).bfloat16()
    with on(ARCH):
        softmax_fwd(x)


CASES: dict[str, Case] = {
    "float-exact": Case(exact_floats),
    "conversions": Case(exact_conversions),
    "integers": Case(exact_integers),
    "warp": Case(exact_warp),
    **{
        name.replace(".", "-"): Case(
            approximate(name, low, high), Tolerance(absolute, relative + _LAST_BIT, why)
        )
        for name, (low, high, absolute, relative, why) in APPROXIMATE.items()
    },
    "mbarrier": Case(mbarrier_phases),
    "bulk-copy": Case(bulk_copy),
    **{f"tensor-swizzle{n}": Case(tensor_copy(n)) for n in (16, 32, 64, 128)},
    **{f"wgmma-{name}": Case(*given) for name, given in WGMMAS.items()},
    "gemm": Case(own_gemm, Tolerance(1e-3, 1e-5, "sums of 256 terms in another order")),
    "quack-gemm": Case(public_gemm, Tolerance(1e-3, 2**-7, "one place of bf16")),
    "quack-softmax": Case(public_softmax, Tolerance(1e-8, 2**-7, "one place of bf16")),
}
