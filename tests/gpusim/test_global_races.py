# SPDX-License-Identifier: MIT
"""Races in global memory: what orders the accesses of warps, CTAs and copies, and what does not."""

from __future__ import annotations

import re

import pytest
import torch
import ts_gpusim
from ts_gpusim.faults import Finding
from ts_gpusim.machine import Machine

SEEDS = range(5)

HEAD = """.version 8.6
.target sm_100a
.address_size 64
.visible .entry kernel(.param .u64 data, .param .u64 flags)
{
    .shared .align 128 .b8 buffer[256];
    .shared .align 8 .b64 full;
    .reg .pred %p, %leader, %first, %second, %sender, %receiver, %third;
    .reg .b32 %tid, %cta, %warp, %v, %w, %at, %buffer, %full;
    .reg .b64 %data, %flags, %own, %off;
    ld.param.u64 %data, [data];
    ld.param.u64 %flags, [flags];
    mov.u32 %tid, %tid.x;
    mov.u32 %cta, %ctaid.x;
    mov.u32 %buffer, buffer;
    mov.u32 %full, full;
    shr.u32 %warp, %tid, 5;
    shl.b32 %at, %tid, 2;
    mul.wide.u32 %off, %tid, 4;
    add.u64 %own, %data, %off;
    add.u32 %at, %at, %buffer;
    setp.eq.u32 %leader, %tid, 0;
    setp.eq.u32 %first, %warp, 0;
    setp.eq.u32 %second, %warp, 1;
    setp.eq.u32 %sender, %cta, 0;
    setp.eq.u32 %receiver, %cta, 1;
    setp.eq.u32 %third, %cta, 2;
"""


def run(
    body: str, seed: int, ctas: int = 2, threads: int = 64, cluster: int = 1
) -> tuple[list[Finding], torch.Tensor]:
    """What was found, and the data: 64 int32."""
    data = torch.zeros(64, dtype=torch.int32)
    flags = torch.zeros(16, dtype=torch.int32)
    machine = Machine(seed, collect=True)
    with ts_gpusim.device("sm_100a", execute=machine):
        ts_gpusim.launch_ptx(
            HEAD + body + "ret;\n}",
            "kernel",
            (ctas, 1, 1),
            (threads, 1, 1),
            [data, flags],
            cluster=(cluster, 1, 1),
        )
    return machine.findings, data


def assert_clean(body: str, **shape: int) -> None:
    for seed in SEEDS:
        assert run(body, seed, **shape)[0] == []


def assert_race(body: str, *words: str, **shape: int) -> None:
    """In every run, and each of `words` is in what is said of one."""
    for seed in SEEDS:
        found = run(body, seed, **shape)[0]
        assert found and {finding.kind for finding in found} == {"race"}
        said = "\n".join(finding.sentence for finding in found)
        for word in words:
            assert re.search(word, said), f"{word!r} is not in {said}"


def test_ctas_that_write_the_same_word_race() -> None:
    assert_race(
        "@%leader st.global.u32 [%data+8], %cta;",
        r"a write of global memory at 0x\w+ \(argument 0 \[64\] i32, byte 8\)",
        r"warp 0 of CTA \(\d, 0, 0\), `@%leader st\.global\.u32 \[%data.*` \(PTX line \d+",
        "is in no order with a write",
    )


def test_ctas_may_write_the_same_value() -> None:
    assert_clean("st.global.u32 [%own], %tid;", ctas=3)


def test_ctas_may_write_neighbouring_bytes() -> None:
    assert_clean("""
    cvt.u64.u32 %off, %cta;
    add.u64 %data, %data, %off;
    @%leader st.global.u8 [%data], %cta;
""")


def test_what_is_only_read_is_free() -> None:
    assert_clean("ld.global.u32 %v, [%own]; bar.sync 0; ld.global.u32 %w, [%own];", ctas=5)


def test_a_write_after_another_cta_has_read_is_a_race() -> None:
    body = "@%sender ld.global.u32 %v, [%own]; @%receiver st.global.u32 [%own], 1;"
    assert_race(body, "a (write|read) of .* in no order with a (read|write)")


@pytest.mark.parametrize(("barrier", "clean"), [("bar.sync 0;", True), ("", False)])
def test_warps_of_a_cta_need_a_barrier(barrier: str, clean: bool) -> None:
    body = f"@%first st.global.u32 [%own], 1; {barrier} @%second ld.global.u32 %v, [%own+-128];"
    (assert_clean if clean else assert_race)(body, ctas=1)


def test_ctas_of_a_cluster_meet_at_its_barrier() -> None:
    body = """
    @%sender st.global.u32 [%own], 1;
    {barrier}
    @%receiver ld.global.u32 %v, [%own];
"""
    barrier = "barrier.cluster.arrive; barrier.cluster.wait;"
    assert_clean(body.format(barrier=barrier), cluster=2)
    assert_race(body.format(barrier=""), cluster=2)


# Message passing: the threads of CTA 0 write, its leader sets a flag; the leader of CTA 1 polls it,
# and its threads read.
MESSAGE = """
    @!%sender bra RECEIVE;
    {write}
    bar.sync 0;
    @!%leader bra END;
    {before}
    {set}
    bra END;
RECEIVE:
    @!%leader bra READ;
WAIT:
    {poll}
    setp.eq.u32 %p, %v, 0;
    @%p bra WAIT;
    {after}
READ:
    bar.sync 0;
    {read}
END:
"""


def message(
    set_: str = "st.release.gpu.global.u32 [%flags], 1;",
    poll: str = "ld.acquire.gpu.global.u32 %v, [%flags];",
    before: str = "",
    after: str = "",
    write: str = "st.global.u32 [%own], 7;",
    read: str = "ld.global.u32 %w, [%own];",
) -> str:
    return MESSAGE.format(set=set_, poll=poll, before=before, after=after, write=write, read=read)


RELAXED_SET = "st.relaxed.gpu.global.u32 [%flags], 1;"
RELAXED_POLL = "ld.relaxed.gpu.global.u32 %v, [%flags];"
VOLATILE_SET = "st.volatile.global.u32 [%flags], 1;"
VOLATILE_POLL = "ld.volatile.global.u32 %v, [%flags];"
ACQ_REL = "fence.acq_rel.gpu;"


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"set_": "red.release.gpu.global.add.u32 [%flags], 1;"},
        {"set_": "atom.acq_rel.gpu.global.exch.b32 %v, [%flags], 1;"},
        {"poll": "atom.acquire.gpu.global.or.b32 %v, [%flags], 0;"},
        {"poll": "atom.acq_rel.sys.global.cas.b32 %v, [%flags], 1, 1;"},
        {"set_": RELAXED_SET, "before": ACQ_REL},
        {"poll": RELAXED_POLL, "after": ACQ_REL},
        {"set_": RELAXED_SET, "before": ACQ_REL, "poll": RELAXED_POLL, "after": ACQ_REL},
        {
            "set_": VOLATILE_SET,
            "before": "membar.gl;",
            "poll": VOLATILE_POLL,
            "after": "membar.gl;",
        },
        {"set_": "red.global.add.u32 [%flags], 1;", "before": "fence.sc.sys;"},
        {"set_": RELAXED_SET, "before": "fence.release.gpu;"},
        {"poll": RELAXED_POLL, "after": "fence.acquire.gpu;"},
    ],
)
def test_a_release_that_is_acquired_orders(parts: dict[str, str]) -> None:
    assert_clean(message(**parts))


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"set_": RELAXED_SET}, "the flag was written relaxed, with no fence before it"),
        ({"poll": RELAXED_POLL}, "relaxed, and no fence has followed"),
        ({"set_": RELAXED_SET, "before": "fence.acquire.gpu;"}, "with no fence before it"),
        ({"poll": RELAXED_POLL, "after": "fence.release.gpu;"}, "no fence has followed"),
        ({"set_": "st.release.cta.global.u32 [%flags], 1;"}, "the scope .* is too narrow|scope of"),
        ({"poll": "ld.acquire.cta.global.u32 %v, [%flags];"}, "scope"),
        ({"set_": RELAXED_SET, "before": "membar.cta;"}, "scope"),
        ({"poll": RELAXED_POLL, "after": "fence.acq_rel.cta;"}, "the scope of the fence"),
        ({"set_": VOLATILE_SET, "poll": VOLATILE_POLL}, "with no fence before it"),
        ({"set_": "st.global.u32 [%flags], 1;"}, "argument 1"),
        ({"poll": "ld.global.u32 %v, [%flags];"}, "argument 1"),
    ],
)
def test_each_missing_piece_is_a_race_that_says_so(parts: dict[str, str], why: str) -> None:
    assert_race(message(**parts), why)


def test_a_scope_of_the_cluster_is_enough_in_a_cluster() -> None:
    parts = {
        "set_": "st.release.cluster.global.u32 [%flags], 1;",
        "poll": "ld.acquire.cluster.global.u32 %v, [%flags];",
    }
    assert_clean(message(**parts), cluster=2)
    assert_race(message(**parts), cluster=1)


def test_what_is_written_after_the_release_is_not_told() -> None:
    late = message(set_="st.release.gpu.global.u32 [%flags], 1; st.global.u32 [%data], 9;")
    assert_race(late, "in no order with")


CHAIN = """
    @!%leader bra END;
    @%sender st.global.u32 [%data], 1;
    @%sender {first};
    @%sender bra END;
    @%third bra LAST;
WAIT:
    ld.acquire.gpu.global.u32 %v, [%flags];
    setp.eq.u32 %p, %v, 0;
    @%p bra WAIT;
    {second};
    bra END;
LAST:
    ld.acquire.gpu.global.u32 %v, [%flags{last}];
    setp.lt.u32 %p, %v, {value};
    @%p bra LAST;
    ld.global.u32 %w, [%data];
END:
"""


def test_what_a_cta_was_told_it_tells_on() -> None:
    release = "st.release.gpu.global.u32 [%flags{}], 1"
    first, second = release.format(""), release.format("+4")
    assert_clean(CHAIN.format(first=first, second=second, last="+4", value=1), ctas=3)
    second = second.replace("release", "relaxed")
    assert_race(CHAIN.format(first=first, second=second, last="+4", value=1), ctas=3)


def test_relaxed_updates_of_a_released_flag_pass_the_release_on() -> None:
    first = "st.release.gpu.global.u32 [%flags], 1"
    second = "atom.relaxed.gpu.global.add.u32 %v, [%flags], 1"
    assert_clean(CHAIN.format(first=first, second=second, last="", value=2), ctas=3)
    second = "st.relaxed.gpu.global.u32 [%flags], 2"
    assert_race(CHAIN.format(first=first, second=second, last="", value=2), ctas=3)


def test_atomics_do_not_race_with_each_other_but_with_plain_accesses() -> None:
    count = "red.global.add.u32 [%data], 1;"
    assert_clean(count, ctas=4)
    assert run(count, 0, ctas=4)[1][0] == 4 * 64
    assert_race(count + "@%third ld.global.u32 %v, [%data];", ctas=4)
    assert_race("@%leader st.global.u32 [%data], 0; bar.sync 0;" + count, ctas=2)


def test_atomics_of_too_narrow_a_scope_race() -> None:
    narrow = "@%leader red.relaxed.cta.global.add.u32 [%data], 1;"
    assert_clean(narrow, ctas=1)
    assert_race(narrow, "both are strong, but the scope of one does not include the other")


def test_atomics_of_shared_memory_do_not_race_but_with_plain_accesses() -> None:
    clear = "@%leader st.shared.u32 [%buffer], 0; bar.sync 0;"
    count = "red.shared.add.u32 [%buffer], 1;"
    assert_clean(clear + count + "bar.sync 0; ld.shared.u32 %v, [%buffer];")
    for plain in ("ld.shared.u32 %v, [%buffer];", "st.shared.u32 [%buffer], 1;"):
        assert_race(f"{clear} @%first {count} @%second {plain}", "shared memory")


def test_a_flag_in_shared_memory_orders_warps() -> None:
    body = """
    @%leader st.shared.u32 [%buffer], 0;
    bar.sync 0;
    @!%first bra WAIT;
    st.global.u32 [%own], 1;
    {fence}
    @%leader st.volatile.shared.u32 [%buffer], 1;
    bra END;
WAIT:
    ld.volatile.shared.u32 %v, [%buffer];
    setp.eq.u32 %p, %v, 0;
    @%p bra WAIT;
    {fence}
    ld.global.u32 %w, [%own+-128];
END:
"""
    assert_clean(body.format(fence="membar.cta;"), ctas=1)
    assert_race(body.format(fence=""), ctas=1)


# Copies

LOAD = """
    mbarrier.init.shared.b64 [%full], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared.b64 _, [%full], 256;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
        [%buffer], [%data], 256, [%full];
LOADED:
    mbarrier.try_wait.parity.shared.b64 %p, [%full], 0;
    @!%p bra LOADED;
"""
STORE = """
    st.shared.u32 [%at], %tid;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @!%leader bra STORED;
    cp.async.bulk.global.shared::cta.bulk_group [%data], [%buffer], 256;
    cp.async.bulk.commit_group;
    {wait}
STORED:
"""


@pytest.mark.parametrize("fence", ["fence.proxy.async;", "fence.proxy.async.global;"])
def test_a_copy_of_what_threads_wrote_needs_a_proxy_fence(fence: str) -> None:
    load = "@!%leader bra END;" + LOAD
    assert_clean(message(write="st.global.u32 [%own], 7; " + fence, read=load))
    assert_clean(message(read=fence + load))
    assert_race(message(read=load), "is ordered after a write .* but no fence.proxy.async lies")
    wrong = "fence.proxy.async.shared::cta;"
    assert_race(message(read=wrong + load), "no fence.proxy.async lies between them")


def test_what_a_copy_has_written_is_told_when_it_is_waited_for() -> None:
    wait = "cp.async.bulk.wait_group{} 0;"
    assert_clean(message(write=STORE.format(wait=wait.format(""))))
    sources = STORE.format(wait=wait.format(".read"))
    assert_race(message(write=sources), "what was begun by warp 0 of CTA \\(0, 0, 0\\)")
    both = STORE.format(wait=wait.format(".read") + wait.format(""))
    assert_clean(message(write=both))


def test_a_copy_and_a_store_of_another_cta_race() -> None:
    body = "@%sender bra WRITE;" + "@!%leader bra END;" + LOAD + "bra END;"
    assert_race(body + "WRITE: st.global.u32 [%own], 1; END:", "cp.async.bulk.shared::cluster")


def test_reductions_by_copies_do_not_race_with_each_other() -> None:
    add = STORE.replace(
        "cp.async.bulk.global.shared::cta.bulk_group",
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32",
    )
    add = add.format(wait="cp.async.bulk.wait_group 0;")
    assert_clean(add, ctas=3)
    assert run(add, 1, ctas=3)[1].tolist() == [3 * i for i in range(64)]
    mine = STORE.replace("[%at], %tid", "[%at], %cta")
    assert_race(mine.format(wait="cp.async.bulk.wait_group 0;"), ctas=3)


def test_cp_async_reads_global_memory_when_it_completes() -> None:
    body = """
    cp.async.ca.shared.global [%at], [%own], 4;
    cp.async.commit_group;
    {wait}
    bar.sync 0;
    st.global.u32 [%own], 1;
"""
    assert_clean(body.format(wait="cp.async.wait_group 0;"), ctas=1)
    assert_race(body.format(wait="") + "cp.async.wait_group 0;", "cp.async.ca", ctas=1)


def test_launches_run_in_turn() -> None:
    data, flags = torch.zeros(64, dtype=torch.int32), torch.zeros(16, dtype=torch.int32)
    machine = Machine()
    with ts_gpusim.device("sm_100a", execute=machine):
        for ctas, body in ((1, "st.global.u32 [%own], 1;"), (3, "ld.global.u32 %v, [%own];")):
            ptx = HEAD + body + "ret;\n}"
            ts_gpusim.launch_ptx(ptx, "kernel", (ctas, 1, 1), (64, 1, 1), [data, flags])
    assert machine.findings == []
