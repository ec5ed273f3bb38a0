# SPDX-License-Identifier: MIT
"""Pieces of kernels of four warps that use the tensor cores, and random matrices for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import ts_gpusim
from gpusim_operands import STEP

THREADS = 128
STEPS = 2  # along K
BOX = 1024  # where the kernels' first variable of shared memory begins in a CTA

TYPES = {
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "tf32": torch.float32,
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
}
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


@dataclass(frozen=True)
class Matrix:
    bits: np.ndarray  # [rows, k], unsigned
    values: np.ndarray  # as the tensor core takes them, float64


def random_matrix(rows: int, type_: str, seed: int, steps: int = STEPS) -> Matrix:
    if type_ in ("s8", "u8"):
        integers = np.random.default_rng(seed).integers(0, 256, (rows, steps * STEP), np.uint8)
        return Matrix(integers, integers.view(np.int8 if type_ == "s8" else np.uint8).astype(float))
    dtype = TYPES[type_]
    shape = (rows, steps * STEP // dtype.itemsize)
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    bits = numbers.view(BITS[dtype.itemsize]).numpy().view(f"u{dtype.itemsize}")
    values = numbers.double().numpy()
    if type_ == "tf32":  # the low 13 bits are not read
        values = (bits & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    return Matrix(bits, values)


# Pieces of kernels of four warps

HEADER = ".version 8.8\n.target {arch}\n.address_size 64\n"
REGISTERS = """
    .reg .pred %first, %warp0, %done, %more, %enable;
    .reg .b16 %mask;
    .reg .b32 %tid, %warp, %at, %box, %bar, %i, %value, %rank, %tmem, %slot, %idesc, %lanes, %zero;
    .reg .b64 %in, %init, %out, %address, %a, %b;
    .reg .b32 %r<256>;
    mov.u32 %tid, %tid.x;
    shr.u32 %warp, %tid, 5;
    setp.eq.u32 %first, %tid, 0;
    setp.eq.u32 %warp0, %warp, 0;
    mov.u32 %box, box;
    mov.u32 %bar, bar;
    mov.u32 %slot, slot;
    mov.u32 %rank, %cluster_ctarank;
    shl.b32 %lanes, %warp, 21;
"""
SHARED = """
    .shared .align 1024 .b8 box[{size}];
    .shared .align 8 .b64 bar;
    .shared .align 4 .b32 slot;
"""
INIT = """
    @%first mbarrier.init.shared.b64 [%bar], 1;
    fence.mbarrier_init.release.cluster;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
"""
WAIT = """
WAIT:
    mbarrier.try_wait.parity.shared.b64 %done, [%bar], 0;
    @!%done bra WAIT;
"""


def own_part(name: str, size: int) -> str:
    return f"""
    ld.param.u64 %{name}, [{name}];
    mad.wide.u32 %{name}, %rank, {size}, %{name};
"""


def image_to_box(size: int) -> str:
    return f"""{own_part("in", size)}
    shl.b32 %at, %tid, 2;
IMAGE:
    cvt.u64.u32 %address, %at;
    add.u64 %address, %address, %in;
    ld.global.u32 %value, [%address];
    add.u32 %i, %box, %at;
    st.shared.u32 [%i], %value;
    add.u32 %at, %at, {4 * THREADS};
    setp.lt.u32 %more, %at, {size};
    @%more bra IMAGE;
"""


def registers(count: int, first: int = 0) -> str:
    return "{" + ", ".join(f"%r{first + i}" for i in range(count)) + "}"


def thread_words(name: str, count: int, action: str, first: int = 0) -> str:
    """`count` words of a thread, in `name`: [ctas, threads, count]."""
    code = f"    mad.wide.u32 %address, %tid, {4 * count}, %{name};\n"
    for i in range(count):
        place = f"[%address+{4 * i}]"
        operands = f"%r{first + i}, {place}" if action == "ld" else f"{place}, %r{first + i}"
        code += f"    {action}.global.u32 {operands};\n"
    return code


def alloc(columns: int = 512, group: int = 1) -> str:
    return f"""
    @%warp0 tcgen05.alloc.cta_group::{group}.sync.aligned.shared::cta.b32 [%slot], {columns};
    bar.sync 0;
    ld.shared.u32 %tmem, [%slot];
"""


def dealloc(columns: int = 512, group: int = 1) -> str:
    return f"""
    tcgen05.fence::before_thread_sync;
    bar.sync 0;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    @%warp0 tcgen05.dealloc.cta_group::{group}.sync.aligned.b32 %tmem, {columns};
"""


def fill_tensor_memory(columns: int) -> str:
    """From `init`: [ctas, 128, columns]."""
    return f"""{own_part("init", 4 * THREADS * columns)}{thread_words("init", columns, "ld")}
    add.u32 %i, %tmem, %lanes;
    tcgen05.st.sync.aligned.32x32b.x{columns}.b32 [%i], {registers(columns)};
    tcgen05.wait::st.sync.aligned;
    tcgen05.fence::before_thread_sync;
    bar.sync 0;
    tcgen05.fence::after_thread_sync;
"""


def drain_tensor_memory(columns: int) -> str:
    """To `out`: [ctas, 128, columns]."""
    return f"""{own_part("out", 4 * THREADS * columns)}
    tcgen05.fence::after_thread_sync;
    add.u32 %i, %tmem, %lanes;
    tcgen05.ld.sync.aligned.32x32b.x{columns}.b32 {registers(columns)}, [%i];
    tcgen05.wait::ld.sync.aligned;
{thread_words("out", columns, "st")}"""


def kernel(parameters: str, size: int, code: str, arch: str = "sm_100a") -> str:
    return f"""{HEADER.format(arch=arch)}
.visible .entry kernel({parameters}) {{
{SHARED.format(size=size)}{REGISTERS}{code}
    ret;
}}
"""


def launch(ptx: str, arguments: list[object], ctas: int = 1) -> None:
    shape = (ctas, 1, 1)
    ts_gpusim.launch_ptx(ptx, "kernel", shape, (THREADS, 1, 1), arguments, cluster=shape)
