# SPDX-License-Identifier: MIT
"""Bugs planted in copies that go on by themselves (cp.async, bulk, TMA): all are found."""

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

FENCE = "fence.proxy.async.shared::cta;"
STORE_TILE = """
    @%leader cp.async.bulk.global.shared::cta.bulk_group [%target], [%tile], 512;
    @%leader cp.async.bulk.commit_group;
"""
STORED = "@%leader cp.async.bulk.wait_group 0;"
MULTICAST = """
    mov.u16 %mask, {piece};
    setp.eq.and.u32 %q, %tid, 0, %even;
    @%leader mbarrier.arrive.expect_tx.shared.b64 _, [%full], 512;
    @%q cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
        [%tile], [%source], 512, [%full], %mask;
"""
BOX = "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
# A page of the source is what its number in the table says; a warp copies one.
PAGE = """
    shl.b32 %v, %warp, 2;
    cvt.u64.u32 %a, %v;
    add.u64 %a, %a, %table;
    ld.global.u32 %v, [%a];
    add.u32 %v, %v, {piece};
    mad.wide.u32 %a, %v, 2048, %source;
    mad.wide.u32 %a, %lane, 4, %a;
    ld.global.u32 %w, [%a];
    st.global.u32 [%to], %w;
"""

BUGS = {
    "a copy reads what threads wrote without a proxy fence": Planted(
        "st.shared.u32 [%at], %tid;\n{piece}\nbar.sync 0;" + STORE_TILE + STORED,
        right=FENCE,
        wrong="",
        kind="race",
        words=r"no fence\.proxy\.async lies between them",
    ),
    "the proxy fence comes after the barrier, in another thread": Planted(
        "st.shared.u32 [%at], %tid;\n{piece}" + STORE_TILE + STORED,
        right=f"{FENCE}\nbar.sync 0;",
        wrong="bar.sync 0;\n@%second " + FENCE,
        kind="race",
        words=r"no fence\.proxy\.async lies between them",
    ),
    "a tile is written again while a copy reads it": Planted(
        "st.shared.u32 [%at], %tid;\n"
        + FENCE
        + "\nbar.sync 0;"
        + STORE_TILE
        + "{piece}\nbar.sync 0;\nst.shared.u32 [%at], %zero;\n"
        + STORED,
        right="@%leader cp.async.bulk.wait_group.read 0;",
        wrong="",
        kind="race",
        words=between(r"st\.shared", r"cp\.async\.bulk\.global"),
    ),
    "wait_group leaves one group too many under way": Planted(
        "st.shared.u32 [%at], %tid;\n"
        + FENCE
        + "\nbar.sync 0;"
        + STORE_TILE
        + "@%leader cp.async.bulk.wait_group.read {piece};\nbar.sync 0;\n"
        + "st.shared.u32 [%at], %zero;\n"
        + STORED,
        right="0",
        wrong="1",
        kind="race",
        words=between(r"st\.shared", r"cp\.async\.bulk\.global"),
    ),
    "a copy is waited for before its group is committed": Planted(
        "st.shared.u32 [%at], %tid;\n"
        + FENCE
        + "\nbar.sync 0;\n"
        + "@%leader cp.async.bulk.global.shared::cta.bulk_group [%target], [%tile], 512;\n"
        + "{piece}\nbar.sync 0;\nst.shared.u32 [%at], %zero;",
        right="@%leader cp.async.bulk.commit_group;\n@%leader cp.async.bulk.wait_group 0;",
        wrong="@%leader cp.async.bulk.wait_group 0;\n@%leader cp.async.bulk.commit_group;",
        kind="race",
        words=between(r"st\.shared", r"cp\.async\.bulk\.global"),
    ),
    "a thread reads its cp.async without waiting": Planted(
        "st.shared.u32 [%at], %zero;\ncp.async.ca.shared.global [%at], [%from], 4;\n"
        "cp.async.commit_group;\n{piece}\nld.shared.u32 %w, [%at];\ncp.async.wait_all;",
        right="cp.async.wait_group 0;",
        wrong="",
        kind="race",
        words=between(r"ld\.shared", r"cp\.async\.ca"),
    ),
    "a warp reads another's cp.async without a barrier": Planted(
        "st.shared.u32 [%at], %zero;\nbar.sync 0;\ncp.async.ca.shared.global [%at], [%from], 4;\n"
        "cp.async.commit_group;\ncp.async.wait_group 0;\n{piece}\n"
        "xor.b32 %v, %at, 128;\nld.shared.u32 %w, [%v];",
        right="bar.sync 0;",
        wrong="",
        kind="race",
        words=between(r"ld\.shared", r"cp\.async\.ca"),
    ),
    "a tile is read before its mbarrier says that it is there": Planted(
        "st.shared.u32 [%at], %zero;\n"
        + FENCE
        + "\n"
        + INIT
        + load(512)
        + "{piece}"
        + wait("%full", 0, "END"),
        right=wait("%full", 0, "FULL") + "ld.shared.u32 %w, [%at];",
        wrong="ld.shared.u32 %w, [%at];",
        kind="race",
        words=between(r"ld\.shared", r"cp\.async\.bulk"),
    ),
    "a copy overwrites what threads have just read": Planted(
        "st.shared.u32 [%at], %tid;\n"
        + FENCE
        + "\n"
        + INIT
        + "@%second ld.shared.u32 %w, [%at];\n{piece}"
        + load(512)
        + wait("%full", 0, "FULL"),
        right="bar.sync 0;",
        wrong="",
        kind="race",
        words=between(r"cp\.async\.bulk", r"ld\.shared"),
    ),
    "the last rows of a tile are never loaded": Planted(
        INIT + "{piece}" + wait("%full", 0, "FULL") + "ld.shared.u32 %w, [%at];",
        right=load(512),
        wrong=load(480),
        kind="uninitialised",
        words="never written",
    ),
    "the size of a bulk copy is no multiple of 16": Planted(
        INIT + "{piece}",
        right=load(48) + wait("%full", 0, "FULL"),
        wrong=load(40) + wait("%full", 0, "FULL"),
        kind="misaligned",
        words="the size of a bulk copy",
    ),
    "a bulk copy goes to an address that is no multiple of 16": Planted(
        INIT
        + "@%leader mbarrier.arrive.expect_tx.shared.b64 _, [%full], 512;\n"
        + "@%leader cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes\n"
        + "    [%tile+{piece}], [%source], 512, [%full];\n"
        + wait("%full", 0, "FULL"),
        right="16",
        wrong="8",
        kind="misaligned",
        words="the destination of a bulk copy",
    ),
    "a box goes to an address that is no multiple of 128": Planted(
        INIT
        + "@%leader mbarrier.arrive.expect_tx.shared.b64 _, [%full], 1024;\n"
        + f"@%leader {BOX} [%tile+{{piece}}], [%map, {{%zero, %zero}}], [%full];\n"
        + wait("%full", 0, "FULL"),
        right="1024",
        wrong="64",
        kind="misaligned",
        words="the destination of a tensor copy",
    ),
    "the bytes announced are not those of the box": Planted(
        INIT
        + "@%leader mbarrier.arrive.expect_tx.shared.b64 _, [%full], {piece};\n"
        + f"@%leader {BOX} [%tile], [%map, {{%zero, %zero}}], [%full];\n"
        + wait("%full", 0, "FULL"),
        right="1024",
        wrong="2048",
        kind="deadlock",
        words="1024 bytes outstanding",
    ),
    "a copy has more coordinates than its tensor map dimensions": Planted(
        INIT
        + "@%leader mbarrier.arrive.expect_tx.shared.b64 _, [%full], 1024;\n"
        + "{piece}\n"
        + wait("%full", 0, "FULL"),
        right=f"@%leader {BOX} [%tile], [%map, {{%zero, %zero}}], [%full];",
        wrong=f"@%leader {BOX.replace('2d', '3d')} [%tile], [%map, {{%zero, %zero, %zero}}],"
        " [%full];",
        kind="tensor-map",
        words="3 dimensions is given a tensor map of 2",
    ),
    "a copy reads past the end of its tensor": Planted(
        INIT
        + "add.u64 %a, %source, {piece};\n"
        + load(512).replace("%source", "%a")
        + wait("%full", 0, "FULL"),
        right="7680",
        wrong="7696",
        kind="out-of-bounds",
        words="16 bytes past the end of",
    ),
    "a copy writes past the end of its tensor": Planted(
        "st.shared.u32 [%at], %tid;\n"
        + FENCE
        + "\nbar.sync 0;\nadd.u64 %target, %target, {piece};"
        + STORE_TILE
        + STORED,
        right="7680",
        wrong="8192",
        kind="out-of-bounds",
        words="past the end of",
    ),
    "a page is not in the cache": Planted(
        PAGE, right="0", wrong="1", kind="out-of-bounds", words="past the end of argument 0"
    ),
    "the page table is read past its end": Planted(
        PAGE.replace("%warp, 2;", "%warp, 2;\nadd.u32 %v, %v, {entry};")
        .replace("{piece}", "0")
        .replace("{entry}", "{piece}"),
        right="0",
        wrong="4",
        kind="out-of-bounds",
        words="past the end of argument 2",
    ),
    "a multicast names a CTA that its cluster has not": Planted(
        INIT + CLUSTER_SYNC + MULTICAST + wait("%full", 0, "FULL"),
        right="3",
        wrong="7",
        kind="out-of-bounds",
        words="a multicast names CTA 2 of a cluster of 2",
        ctas=2,
    ),
    "a multicast leaves out a CTA that waits for it": Planted(
        INIT + CLUSTER_SYNC + MULTICAST + wait("%full", 0, "FULL"),
        right="3",
        wrong="1",
        kind="deadlock",
        words="512 bytes outstanding",
        ctas=2,
    ),
}


@pytest.mark.parametrize("planted", BUGS.values(), ids=BUGS)
def test_the_right_kernel_is_found_right(planted: Planted) -> None:
    assert_nothing_is_found(planted)


@pytest.mark.parametrize("planted", BUGS.values(), ids=BUGS)
def test_the_bug_is_found(planted: Planted) -> None:
    assert_bug_is_found(planted)
