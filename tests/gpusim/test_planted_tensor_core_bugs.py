# SPDX-License-Identifier: MIT
"""Bugs planted in how kernels use tcgen05 and tensor memory: all are found."""

from __future__ import annotations

import pytest
from gpusim_planted import (
    CLUSTER_SYNC,
    INIT,
    Planted,
    assert_bug_is_found,
    assert_nothing_is_found,
    between,
    load,
    wait,
)

ALLOC = """
    @%first tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%slot], 64;
    tcgen05.fence::before_thread_sync;
    bar.sync 0;
    tcgen05.fence::after_thread_sync;
    ld.shared.u32 %tmem, [%slot];
    shl.b32 %own, %warp, 21;
    add.u32 %own, %own, %tmem;
"""
MEET = """
    tcgen05.fence::before_thread_sync;
    bar.sync 0;
    tcgen05.fence::after_thread_sync;
"""
DEALLOC = "@%first tcgen05.dealloc.cta_group::1.sync.aligned.b32 %tmem, 64;"
FREE = MEET + DEALLOC

# D[128, 16] = A[128, 16] B[16, 16] of bf16, neither swizzled: A is 4096 bytes, B the 512 after.
A_LEADING, B_LEADING, STRIDE = 16 * 128, 16 * 16, 128
VERSION = 1 << 46
IDESC = 1 << 4 | 1 << 7 | 1 << 10 | 16 >> 3 << 17 | 128 >> 4 << 24


def descriptors(a_stride: int = STRIDE, swizzle: int = 0) -> str:
    a = VERSION | a_stride >> 4 << 32 | A_LEADING >> 4 << 16 | swizzle << 61
    b = VERSION | STRIDE >> 4 << 32 | B_LEADING >> 4 << 16
    return f"""
    mov.u32 %idesc, {IDESC};
    shr.u32 %v, %tile, 4;
    cvt.u64.u32 %a, %v;
    add.u64 %b, %a, {4096 >> 4};
    or.b64 %a, %a, {a};
    or.b64 %b, %b, {b};
"""


def mma(column: int = 0) -> str:
    return f"""
    add.u32 %x, %tmem, {column};
    @%leader tcgen05.mma.cta_group::1.kind::f16 [%x], %a, %b, %idesc, %accumulates;
"""


COMMIT = "@%leader tcgen05.commit.cta_group::1.mbarrier::arrive::one.b64 [%done];\n"
AFTER = "tcgen05.fence::after_thread_sync;\n"
LOADED = load() + wait("%full", 0, "FULL") + AFTER
DONE = wait("%done", 0, "DONE") + AFTER
BEGIN = INIT + ALLOC + descriptors() + LOADED


def tensor_load(column: int = 0) -> str:
    return f"""
    add.u32 %x, %own, {column};
    tcgen05.ld.sync.aligned.32x32b.x1.b32 {{%r0}}, [%x];
    tcgen05.wait::ld.sync.aligned;
"""


STORE = """
    mov.u32 %r0, 0;
    tcgen05.st.sync.aligned.32x32b.x1.b32 [%own], {%r0};
"""
STORED = "tcgen05.wait::st.sync.aligned;\n"

BUGS = {
    "D is read without waiting for the commit": Planted(
        BEGIN + mma() + COMMIT + "{piece}" + tensor_load() + wait("%done", 0, "END") + FREE,
        right=DONE,
        wrong="",
        kind="race",
        words=between(r"tcgen05\.ld", r"tcgen05\.mma"),
    ),
    "the commit comes before the MMA": Planted(
        BEGIN + "{piece}" + DONE + tensor_load() + FREE,
        right=mma() + COMMIT,
        wrong=COMMIT + mma(),
        kind="race|tensor-memory",  # before the columns are freed, and after
        words=r"tcgen05\.mma",
    ),
    "an MMA is never committed": Planted(
        BEGIN + mma() + "{piece}" + DONE + tensor_load() + FREE,
        right=COMMIT,
        wrong="",
        kind="deadlock",
        words="1 of 1 arrivals",
    ),
    "an MMA reads operands before they are there": Planted(
        # The tile was filled before, so that its bytes are at least written.
        INIT
        + ALLOC
        + descriptors()
        + LOADED
        + MEET
        + load()
        + "{piece}"
        + mma()
        + COMMIT
        + DONE
        + wait("%full", 1, "END")
        + tensor_load()
        + FREE,
        right=wait("%full", 1, "AGAIN") + AFTER,
        wrong="",
        kind="race",
        words=between(r"tcgen05\.mma", r"cp\.async\.bulk"),
    ),
    "operands are overwritten while an MMA reads them": Planted(
        BEGIN
        + MEET
        + mma()
        + COMMIT
        + "{piece}"
        + load()
        + DONE
        + wait("%full", 1, "AGAIN")
        + FREE,
        right=wait("%done", 0, "EMPTY"),
        wrong="",
        kind="race",
        words=between(r"cp\.async\.bulk", r"tcgen05\.mma"),
    ),
    "threads write operands without a proxy fence": Planted(
        BEGIN
        + "st.shared.u32 [%at], %zero;\n{piece}\n"
        + MEET
        + mma()
        + COMMIT
        + DONE
        + tensor_load()
        + FREE,
        right="fence.proxy.async.shared::cta;",
        wrong="",
        kind="race",
        words=r"no fence\.proxy\.async lies between them",
    ),
    "an MMA reads operands that were never loaded": Planted(
        INIT + ALLOC + descriptors() + "{piece}" + mma() + COMMIT + DONE + tensor_load() + FREE,
        right=LOADED,
        wrong="",
        kind="uninitialised",
        words=r"(?s)never written.*tcgen05\.mma",
    ),
    "a descriptor has another swizzle than the tile": Planted(
        # Rows of A are 32 bytes apart, as 32 bytes of swizzle have them, not 128.
        INIT
        + ALLOC
        + "{piece}"
        + load(4608)
        + wait("%full", 0, "FULL")
        + AFTER
        + mma()
        + COMMIT
        + DONE
        + tensor_load()
        + FREE,
        right=descriptors(a_stride=256, swizzle=6),
        wrong=descriptors(a_stride=1024, swizzle=2),
        kind="uninitialised",
        words=r"(?s)never written.*tcgen05\.mma",
    ),
    "two accumulators overlap": Planted(
        # The second MMA runs while the warps read what the first has left.
        BEGIN
        + mma(0)
        + COMMIT
        + DONE
        + MEET
        + mma(0).replace("%tmem, 0", "%tmem, {piece}")
        + COMMIT
        + tensor_load(15)
        + wait("%done", 1, "SECOND")
        + AFTER
        + FREE,
        right="16",
        wrong="8",
        kind="race",
        words=between(r"tcgen05\.ld", r"tcgen05\.mma"),
    ),
    "an MMA takes what a thread has not stored yet": Planted(
        BEGIN + STORE + "{piece}" + MEET + mma() + COMMIT + DONE + tensor_load() + FREE,
        right=STORED,
        wrong="",
        kind="race",
        words=between(r"tcgen05\.mma", r"tcgen05\.st"),
    ),
    "an accumulator is overwritten while it is loaded": Planted(
        BEGIN
        + mma()
        + COMMIT
        + DONE
        + "{piece}\n"
        + MEET
        + mma()
        + COMMIT
        + wait("%done", 1, "SECOND")
        + AFTER
        + FREE,
        right=tensor_load(),
        wrong=tensor_load().replace("tcgen05.wait::ld.sync.aligned;", ""),
        kind="race",
        words=between(r"tcgen05\.mma", r"tcgen05\.ld"),
    ),
    "a warp loads another's quarter of the lanes": Planted(
        ALLOC + STORE + STORED + MEET + "{piece}" + FREE,
        right=tensor_load(),
        wrong=tensor_load().replace("%own", "%tmem"),
        kind="tensor-memory",
        words="warp [123] accesses tensor memory from lane 0, but its quarter begins at",
    ),
    "the address of tensor memory is read before it is there": Planted(
        ALLOC.replace("bar.sync 0;", "{piece}") + FREE,
        right="bar.sync 0;",
        wrong="",
        kind="race|uninitialised",
        words=r"slot",
    ),
    "tensor memory is leaked": Planted(
        ALLOC + MEET + "{piece}",
        right=DEALLOC,
        wrong="",
        kind="tensor-memory",
        words="ends with 64 columns of tensor memory not freed",
    ),
    "tensor memory is freed twice": Planted(
        ALLOC + MEET + DEALLOC + "{piece}",
        right="",
        wrong=DEALLOC,
        kind="tensor-memory",
        words="64 columns of tensor memory from 0 are freed, but no allocation is that",
    ),
    "half of an allocation is freed": Planted(
        ALLOC + MEET + "{piece}",
        right=DEALLOC,
        wrong=DEALLOC.replace("64", "32"),
        kind="tensor-memory",
        words="32 columns of tensor memory from 0 are freed, but no allocation is that",
    ),
    "tensor memory is used after it was freed": Planted(
        ALLOC + MEET + "{piece}",
        right=STORE + STORED + tensor_load() + FREE,
        wrong=FREE + "bar.sync 0;" + STORE + STORED,
        kind="tensor-memory",
        words="columns 0 to 0 of tensor memory are used, but not all are allocated",
    ),
    "tensor memory is freed while others still load it": Planted(
        ALLOC + STORE + STORED + tensor_load() + "{piece}" + DEALLOC,
        right=MEET,
        wrong="",
        kind="race|tensor-memory",
        words=r"tcgen05\.(dealloc|st|ld)",
    ),
    "more columns are used than were allocated": Planted(
        BEGIN + mma(0).replace("%tmem, 0", "%tmem, {piece}") + COMMIT + DONE + FREE,
        right="48",
        wrong="56",
        kind="tensor-memory",
        words="columns 56 to 71 of tensor memory are used, but not all are allocated",
    ),
    "a number of columns is no power of two": Planted(
        "@%first tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%slot], {piece};\n"
        + ALLOC.split("\n", 2)[2]
        + MEET
        + "@%first tcgen05.dealloc.cta_group::1.sync.aligned.b32 %tmem, {piece};",
        right="64",
        wrong="48",
        kind="tensor-memory",
        words="48 columns of tensor memory are asked for; it must be 32, 64, 128, 256 or 512",
    ),
    "a CTA that has relinquished its permit allocates": Planted(
        "{piece}" + FREE,
        right=ALLOC + "@%first tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;",
        wrong="@%first tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;" + ALLOC,
        kind="tensor-memory",
        words="relinquished its permit",
    ),
    "a CTA of a pair frees tensor memory that the other's MMA still writes": Planted(
        (INIT + ALLOC + CLUSTER_SYNC + LOADED + descriptors()).replace("group::1", "group::2")
        + CLUSTER_SYNC
        + f"""
    mov.u32 %idesc, {IDESC + (128 >> 4 << 24)};
    mov.u16 %mask, 3;
    setp.eq.and.u32 %q, %tid, 0, %even;
    @%q tcgen05.mma.cta_group::2.kind::f16 [%tmem], %a, %b, %idesc, %accumulates;
    @%q tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster.multicast::cluster.b64
        [%done], %mask;
"""
        + "{piece}"
        + FREE.replace("group::1", "group::2"),
        right=DONE,
        wrong="@%odd bra FREE;" + DONE + "FREE:",
        kind="race|tensor-memory",
        words=r"tcgen05\.mma",
        ctas=2,
    ),
}


@pytest.mark.parametrize("planted", BUGS.values(), ids=BUGS)
def test_the_right_kernel_is_found_right(planted: Planted) -> None:
    assert_nothing_is_found(planted)


@pytest.mark.parametrize("planted", BUGS.values(), ids=BUGS)
def test_the_bug_is_found(planted: Planted) -> None:
    assert_bug_is_found(planted)
