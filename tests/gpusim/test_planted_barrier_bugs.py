# SPDX-License-Identifier: MIT
"""Bugs planted in how kernels use mbarriers, named barriers and the cluster's: all are found."""

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
    load,
    wait,
)

READ = "ld.shared.u32 %w, [%at];"
RELEASE = "@%second mbarrier.arrive.shared.b64 _, [%empty];"

BUGS = {
    "the count of an mbarrier is one too high": Planted(
        "@%leader mbarrier.init.shared.b64 [%full], {piece};"
        + SEE_INIT
        + load()
        + wait("%full", 0, "FULL")
        + READ,
        right="1",
        wrong="2",
        kind="deadlock",
        words="1 of 2 arrivals",
    ),
    "the count of an mbarrier is too low: the last arrivals begin another phase": Planted(
        "@%leader mbarrier.init.shared.b64 [%empty], {piece};"
        + SEE_INIT
        + "@%first mbarrier.arrive.shared.b64 _, [%empty];\nbar.sync 0;"
        + wait("%empty", 0, "EMPTY"),
        right="32",
        wrong="16",
        kind="deadlock",
        words="phase 2, 16 of 16 arrivals",
    ),
    "more threads arrive at once than an mbarrier counts": Planted(
        INIT + "@%leader mbarrier.arrive.shared.b64 _, [%full], {piece};",
        right="1",
        wrong="2",
        kind="mbarrier",
        words="more threads arrive at an mbarrier than the 1",
    ),
    "a consumer waits for the parity of the phase before": Planted(
        "st.shared.u32 [%at], %zero;\nfence.proxy.async.shared::cta;\n"
        + INIT
        + load()
        + "{piece}"
        + READ
        + wait("%full", 0, "END"),
        right=wait("%full", 0, "FULL"),
        wrong=wait("%full", 1, "FULL"),
        kind="race|deadlock",  # before the phase ends, and after it
        words=r"ld\.shared.*cp\.async\.bulk|cp\.async\.bulk.*ld\.shared|\[%full\], 1;",
    ),
    "a producer waits for a phase that nobody completes": Planted(
        INIT + "{piece}" + load() + wait("%full", 0, "FULL"),
        right=wait("%empty", 1, "EMPTY"),  # passes: the buffer is empty at first
        wrong=wait("%empty", 0, "EMPTY"),
        kind="deadlock",
        words="32 of 32 arrivals",
    ),
    "a producer is a phase ahead of the consumer": Planted(
        INIT
        + load()
        + wait("%full", 0, "FULL")
        + "bar.sync 0;\n@%second ld.shared.u32 %w, [%at];"
        + RELEASE
        + "{piece}"
        + load()
        + wait("%full", 1, "AGAIN"),
        right=wait("%empty", 0, "EMPTY"),
        wrong="",
        kind="race",
        words=between(r"cp\.async\.bulk", r"ld\.shared"),
        threads=64,
    ),
    "a consumer releases a buffer before it has read it": Planted(
        INIT
        + load()
        + wait("%full", 0, "FULL")
        + "{piece}"
        + wait("%empty", 0, "EMPTY")
        + load()
        + wait("%full", 1, "AGAIN"),
        right="@%second ld.shared.u32 %w, [%at];" + RELEASE,
        wrong=RELEASE + "@%second ld.shared.u32 %w, [%at];",
        kind="race",
        words=between(r"cp\.async\.bulk", r"ld\.shared"),
        threads=64,
    ),
    "a consumer waits on the neighbouring mbarrier": Planted(
        INIT + load() + "{piece}",
        right=wait("%full", 0, "FULL"),
        wrong=wait("%done", 0, "FULL"),
        kind="deadlock",
        words="1 of 1 arrivals and 0 bytes",
    ),
    "more bytes are announced than are copied": Planted(
        INIT + "{piece}" + wait("%full", 0, "FULL") + "@%first ld.shared.u32 %w, [%at];",
        right=load(1024),
        wrong=load(1024, announced=1040),
        kind="deadlock",
        words="16 bytes outstanding",
    ),
    "fewer bytes are announced than are copied": Planted(
        INIT + "{piece}" + wait("%full", 0, "FULL") + "@%first ld.shared.u32 %w, [%at];",
        right=load(1024),
        wrong=load(1024, announced=1008),
        kind="deadlock",
        words="-16 bytes outstanding",
    ),
    "nobody initialises an mbarrier": Planted(
        "{piece}" + load() + wait("%full", 0, "FULL"),
        right=INIT,
        wrong="bar.sync 0;",
        kind="mbarrier",
        words="no mbarrier was initialised",
    ),
    "an mbarrier is initialised with no arrivals": Planted(
        "@%leader mbarrier.init.shared.b64 [%full], {piece};",
        right="1",
        wrong="0",
        kind="mbarrier",
        words="the count 0; it must be 1 to 1048575",
    ),
    "warps name different counts at one barrier": Planted(
        "@%first bar.sync 1, 64;\n@%second bar.sync 1, {piece};",
        right="64",
        wrong="96",
        kind="barrier",
        words="64 and 96 threads|96 and 64 threads",
    ),
    "a producer arrives at another barrier than the consumer's": Planted(
        "@%first st.shared.u32 [%at], %tid;\n@%first bar.arrive {piece}, 64;\n"
        "@%second bar.sync 1, 64;\nxor.b32 %v, %at, 128;\n@%second ld.shared.u32 %w, [%v];",
        right="1",
        wrong="2",
        kind="deadlock",
        words="barrier 1 with 32 threads of 64",
    ),
    "a barrier counts a warp that never comes": Planted(
        "@%first bar.sync 1, {piece};\n@%second bar.sync 1, {piece};",
        right="64",
        wrong="96",
        kind="deadlock",
        words="barrier 1 with 64 threads of 96",
    ),
    "a barrier counts threads that are no whole warps": Planted(
        "@%first bar.sync 1, {piece};\n@%second bar.sync 1, {piece};",
        right="64",
        wrong="48",
        kind="barrier",
        words="48 threads are named at a barrier, which is no multiple of 32",
    ),
    "half a warp goes round a barrier": Planted(
        INIT
        + "{piece} bra ROUND;\nbar.sync 0;\n@%leader mbarrier.arrive.shared.b64 _, [%full];\nROUND:"
        + wait("%full", 0, "FULL"),
        right="@%odd",
        wrong="@%lower",
        kind="deadlock",
        words="the other threads of its warp",
    ),
    "a warp goes round the barrier of all": Planted(
        INIT
        + "{piece} bra ROUND;\nbar.sync 0;\n@%leader mbarrier.arrive.shared.b64 _, [%full];\nROUND:"
        + wait("%full", 0, "FULL"),
        right="@%odd",
        wrong="@%second",
        kind="deadlock",
        words="barrier 0 with 96 threads of all",
    ),
    "two warps take two barriers in opposite order": Planted(
        "@%second bra SECOND;\nbar.sync 1, 64;\nbar.sync 2, 64;\nbra END;\nSECOND:\n{piece}\nEND:",
        right="bar.sync 1, 64;\nbar.sync 2, 64;",
        wrong="bar.sync 2, 64;\nbar.sync 1, 64;",
        kind="deadlock",
        words="barrier 1 with 32 threads of 64",
        threads=64,
    ),
    "a buffer is exchanged again without a second barrier": Planted(
        """
    xor.b32 %v, %at, 128;
    st.shared.u32 [%at], %tid;
    bar.sync 0;
    ld.shared.u32 %w, [%v];
    {piece}
    st.shared.u32 [%at], %w;
    bar.sync 0;
    ld.shared.u32 %w, [%v];""",
        right="bar.sync 0;",
        wrong="",
        kind="race",
        words=r"a write of shared memory.*a read by",
    ),
    "a CTA of the cluster goes round its barrier": Planted(
        INIT
        + CLUSTER_SYNC
        + "{piece} bra ROUND;"
        + CLUSTER_SYNC
        + """ROUND:
    mapa.shared::cluster.u32 %far, %full, 1;
    setp.eq.and.u32 %q, %tid, 0, %even;
    @%q mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%far];
    @%even bra END;"""
        + wait("%full", 0, "FULL")
        + "END:",
        right="@%accumulates",
        wrong="@%odd",
        kind="deadlock",
        words="the barrier of the cluster",
        ctas=2,
    ),
}


@pytest.mark.parametrize("planted", BUGS.values(), ids=BUGS)
def test_the_right_kernel_is_found_right(planted: Planted) -> None:
    assert_nothing_is_found(planted)


@pytest.mark.parametrize("planted", BUGS.values(), ids=BUGS)
def test_the_bug_is_found(planted: Planted) -> None:
    assert_bug_is_found(planted)
