# SPDX-License-Identifier: MIT
"""Bugs planted in accesses to memory and in what threads tell each other: all are found."""

from __future__ import annotations

import pytest
from gpusim_planted import (
    CLUSTER_SYNC,
    INIT,
    SEE_INIT,
    Planted,
    assert_bug_is_found,
    assert_nothing_is_found,
    between,
    wait,
)

TO_PEER = """
    xor.b32 %peer, %rank, 1;
    mapa.shared::cluster.u32 %far, %at, %peer;
"""

BUGS = {
    "a thread loads past the end of a tensor": Planted(
        "ld.global.u32 %w, [%from+{piece}];",
        right="7680",
        wrong="7684",
        kind="out-of-bounds",
        words=r"4 bytes past the end of argument 0",
    ),
    "a thread loads before the beginning of a tensor": Planted(
        "ld.global.u32 %w, [%from+{piece}];",
        right="0",
        wrong="-4",
        kind="out-of-bounds",
        words="4 bytes of global memory .* belong to no tensor",
    ),
    "a wide load is not aligned": Planted(
        "mad.wide.u32 %a, %tid, {piece}, %source;\nld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%a];",
        right="16",
        wrong="4",
        kind="misaligned",
        words="16 bytes to global memory .* is not aligned to 16",
    ),
    "a wide store to shared memory is not aligned": Planted(
        "mad.lo.u32 %v, %tid, 8, %tile;\nst.shared.v2.u32 [%v+{piece}], {%tid, %tid};",
        right="8",
        wrong="4",
        kind="misaligned",
        words="8 bytes to shared memory .* is not aligned to 8",
    ),
    "a thread stores past the end of shared memory": Planted(
        "st.shared.u32 [%at+{piece}], %tid;",
        right="4096",
        wrong="16384",
        kind="out-of-bounds",
        words="outside the CTA's",
    ),
    "a thread loads past the end of its local memory": Planted(
        ".local .align 4 .b8 own[64];\nmov.u64 %a, own;\n"
        "st.local.u32 [%a+60], %tid;\nld.local.u32 %w, [%a+{piece}];",
        right="60",
        wrong="64",
        kind="out-of-bounds",
        words="4 bytes",
    ),
    "the last elements of a tile are never written": Planted(
        "setp.lt.u32 %q, %tid, {piece};\n@%q st.shared.u32 [%at], %tid;\n"
        "bar.sync 0;\nxor.b32 %v, %at, 128;\nld.shared.u32 %w, [%v];",
        right="128",
        wrong="127",
        kind="uninitialised",
        words="never written",
    ),
    "a wide load takes bytes that were never written": Planted(
        "mad.lo.u32 %v, %tid, 16, %tile;\nst.shared.{piece};\n"
        "ld.shared.v4.u32 {%r0, %r1, %r2, %r3}, [%v];",
        right="v4.u32 [%v], {%tid, %tid, %tid, %tid}",
        wrong="v2.u32 [%v], {%tid, %tid}",
        kind="uninitialised",
        words="never written",
    ),
    "two warps write one place": Planted(
        "and.b32 %v, %tid, {piece};\nshl.b32 %v, %v, 2;\nadd.u32 %v, %v, %tile;\n"
        "st.shared.u32 [%v], %tid;",
        right="127",
        wrong="95",
        kind="race",
        words="a write of shared memory .* a write by",
    ),
    "a warp reads its neighbour's row without a barrier": Planted(
        "st.shared.u32 [%at], %tid;\n{piece}\nxor.b32 %v, %at, 128;\nld.shared.u32 %w, [%v];\n",
        right="bar.sync 0;",
        wrong="bar.warp.sync 0xffffffff;",
        kind="race|uninitialised",
        words=r"ld\.shared",
    ),
    "a lane is missing from the mask of a shuffle": Planted(
        "shfl.sync.bfly.b32 %w, %tid, 1, 31, {piece};",
        right="0xffffffff",
        wrong="0x7fffffff",
        kind="member-mask",
        words="lane 31 is not in the mask",
    ),
    "a shuffle reads a lane that does not take part": Planted(
        "@%lower bra LOWER;\nbra END;\nLOWER:\nshfl.sync.bfly.b32 %w, %tid, {piece}, 31, 0xffff;\n"
        "END:",
        right="8",
        wrong="16",
        kind="shuffle",
        words="does not execute this shfl.sync",
    ),
    "half a warp waits for the other half's vote": Planted(
        INIT + "@%lower bra LOWER;\n" + wait("%full", 0, "UPPER") + "bra END;\nLOWER:\n"
        "vote.sync.ballot.b32 %w, %lower, {piece};\n"
        "@%leader mbarrier.arrive.shared.b64 _, [%full];\nEND:",
        right="0x0000ffff",
        wrong="0xffffffff",
        kind="deadlock",
        words="the other threads of its warp",
    ),
    "an address is in a CTA that the cluster has not": Planted(
        "st.shared.u32 [%at], %tid;"
        + CLUSTER_SYNC
        + "mapa.shared::cluster.u32 %far, %at, {piece};\nld.shared::cluster.u32 %w, [%far];"
        + CLUSTER_SYNC,
        right="1",
        wrong="2",
        kind="out-of-bounds",
        words="is in CTA 2 of a cluster of 2",
        ctas=2,
    ),
    "a CTA reads its peer's memory before that is written": Planted(
        "st.shared.u32 [%at], %tid;\n" + TO_PEER + "{piece}\n"
        "ld.shared::cluster.u32 %w, [%far];" + CLUSTER_SYNC,
        right=CLUSTER_SYNC,
        wrong="bar.sync 0;",
        kind="race|uninitialised",
        words=r"ld\.shared::cluster",
        ctas=2,
    ),
    "a barrier of one CTA stands for that of the cluster": Planted(
        "st.shared.u32 [%at], %tid;"
        + CLUSTER_SYNC
        + TO_PEER
        + "ld.shared::cluster.u32 %w, [%far];\n{piece}\nst.shared.u32 [%at], %zero;",
        right=CLUSTER_SYNC,
        wrong="bar.sync 0;",
        kind="race",
        words=between(r"ld\.shared::cluster", r"st\.shared"),
        ctas=2,
    ),
    "a CTA ends while its peer reads its memory": Planted(
        "st.shared.u32 [%at], %tid;"
        + CLUSTER_SYNC
        + TO_PEER
        + "ld.shared::cluster.u32 %w, [%far];\n{piece}",
        right=CLUSTER_SYNC,
        wrong="",
        kind="race",
        words=r"ld\.shared::cluster.*the end of that CTA",
        ctas=2,
    ),
    "a CTA arrives at its peer's mbarrier before that is initialised": Planted(
        INIT
        + "{piece}\nmapa.shared::cluster.u32 %far, %full, %peer;\n"
        + "@%leader mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%far];"
        + wait("%full", 0, "FULL")
        + CLUSTER_SYNC,
        right=CLUSTER_SYNC + TO_PEER,
        wrong=TO_PEER,
        kind="race|mbarrier",
        words=r"mbarrier\.arrive",
        ctas=2,
    ),
    "a warp uses an mbarrier before it knows that it is initialised": Planted(
        "@%leader mbarrier.init.shared.b64 [%full], 1;\nfence.mbarrier_init.release.cluster;\n"
        "{piece}\n@%leader mbarrier.arrive.shared.b64 _, [%full];" + wait("%full", 0, "FULL"),
        right="bar.sync 0;",
        wrong="",
        kind="race|mbarrier",
        words=r"mbarrier\.try_wait",
    ),
    "an mbarrier is initialised again while others wait on it": Planted(
        INIT
        + "@%leader mbarrier.arrive.shared.b64 _, [%full];"
        + wait("%full", 0, "FULL")
        + "{piece}\n@%leader mbarrier.init.shared.b64 [%full], 1;",
        right="bar.sync 0;",
        wrong="",
        kind="race|deadlock",
        words=r"mbarrier\.(init|try_wait)",
    ),
    "a copy arrives at an mbarrier that was initialised without a fence": Planted(
        "@%leader mbarrier.init.shared.b64 [%full], 1;\n{piece}\n"
        """
    @%leader mbarrier.arrive.expect_tx.shared.b64 _, [%full], 512;
    @%leader cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
        [%tile], [%source], 512, [%full];""" + wait("%full", 0, "FULL"),
        right=SEE_INIT,
        wrong="bar.sync 0;",
        kind="mbarrier",
        words=r"no fence\.mbarrier_init lies between them",
    ),
}


@pytest.mark.parametrize("planted", BUGS.values(), ids=BUGS)
def test_the_right_kernel_is_found_right(planted: Planted) -> None:
    assert_nothing_is_found(planted)


@pytest.mark.parametrize("planted", BUGS.values(), ids=BUGS)
def test_the_bug_is_found(planted: Planted) -> None:
    assert_bug_is_found(planted)
