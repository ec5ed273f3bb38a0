# SPDX-License-Identifier: MIT
"""Races between lanes of one warp: executing in lock-step is no order."""

from __future__ import annotations

import re

import pytest
import torch
import ts_gpusim
from ts_gpusim.faults import Finding
from ts_gpusim.machine import Machine

SEEDS = range(4)

HEAD = """.version 8.6
.target sm_100a
.address_size 64
.visible .entry kernel(.param .u64 data)
{
    .shared .align 128 .b8 buffer[256];
    .shared .align 8 .b64 full;
    .reg .pred %p, %leader, %even;
    .reg .b32 %lane, %v, %w, %at, %next, %buffer, %full, %bit;
    .reg .b64 %data, %own, %other, %off;
    ld.param.u64 %data, [data];
    mov.u32 %lane, %laneid;
    mov.u32 %buffer, buffer;
    mov.u32 %full, full;
    shl.b32 %at, %lane, 2;
    xor.b32 %next, %at, 4;
    cvt.u64.u32 %off, %at;
    add.u64 %own, %data, %off;
    cvt.u64.u32 %off, %next;
    add.u64 %other, %data, %off;
    add.u32 %at, %at, %buffer;
    add.u32 %next, %next, %buffer;
    setp.eq.u32 %leader, %lane, 0;
    and.b32 %bit, %lane, 1;
    setp.eq.u32 %even, %bit, 0;
    st.shared.u32 [%at], 0;
    bar.warp.sync 0xffffffff;
"""


def run(body: str, seed: int) -> list[Finding]:
    machine = Machine(seed, collect=True)
    data = torch.zeros(64, dtype=torch.int32)
    with ts_gpusim.device("sm_100a", execute=machine):
        ptx = HEAD + body + "ret;\n}"
        ts_gpusim.launch_ptx(ptx, "kernel", (1, 1, 1), (32, 1, 1), [data])
    return machine.findings


def assert_clean(body: str) -> None:
    for seed in SEEDS:
        assert run(body, seed) == []


def assert_race(body: str, *words: str) -> None:
    for seed in SEEDS:
        found = run(body, seed)
        assert found and {finding.kind for finding in found} == {"race"}
        said = "\n".join(finding.sentence for finding in found)
        for word in words:
            assert re.search(word, said), f"{word!r} is not in {said}"


NEIGHBOUR = "st.shared.u32 [%at], %lane; {} ld.shared.u32 %w, [%next];"
NEIGHBOUR_GLOBAL = "st.global.u32 [%own], %lane; {} ld.global.u32 %w, [%other];"


@pytest.mark.parametrize("neighbour", [NEIGHBOUR, NEIGHBOUR_GLOBAL])
def test_reading_what_another_lane_wrote_is_a_race(neighbour: str) -> None:
    assert_race(
        neighbour.format(""),
        r"a read of (shared|global) memory at 0x\w+.* by lane \d+ of warp 0 of CTA",
        r"is in no order with a write by lane \d+ of warp 0 of CTA .*`st\.(shared|global)\.u32",
        "the lanes of the warp have not met between them",
    )


@pytest.mark.parametrize(
    "meeting",
    [
        "bar.warp.sync 0xffffffff;",
        "bar.sync 0;",
        "shfl.sync.bfly.b32 %v, %lane, 1, 31, 0xffffffff;",
        "vote.sync.any.pred %p, %leader, 0xffffffff;",
        "elect.sync _|%p, 0xffffffff;",
        "barrier.cluster.arrive; barrier.cluster.wait;",
    ],
)
@pytest.mark.parametrize("neighbour", [NEIGHBOUR, NEIGHBOUR_GLOBAL])
def test_lanes_meet_at_every_instruction_with_sync(neighbour: str, meeting: str) -> None:
    assert_clean(neighbour.format(meeting))


def test_a_write_after_another_lane_has_read_is_a_race() -> None:
    body = "ld.shared.u32 %w, [%next]; {} st.shared.u32 [%at], %lane;"
    assert_race(body.format(""), "a write of shared memory .* with a read")
    assert_clean(body.format("bar.warp.sync 0xffffffff;"))


def test_a_word_that_all_lanes_have_read_is_not_written() -> None:
    body = "ld.shared.u32 %w, [%buffer]; {} @%leader st.shared.u32 [%buffer], 1;"
    assert_race(body.format(""), "several lanes of warp 0")
    assert_clean(body.format("bar.warp.sync 0xffffffff;"))


def test_lanes_that_store_different_values_at_one_place_race() -> None:
    assert_race("st.shared.u32 [%buffer], %lane;", "a write of shared memory .* with a write")
    assert_race("st.global.u32 [%data], %lane;", "a write of global memory .* with a write")


def test_lanes_may_store_the_same_value_at_one_place() -> None:
    assert_clean("st.shared.u32 [%buffer], 5; st.global.u32 [%data], 5;")


def test_each_lane_may_use_its_own_words_and_bytes() -> None:
    assert_clean("""
    st.shared.u32 [%at], %lane;
    ld.shared.u32 %v, [%at];
    st.shared.u32 [%at], 7;
    add.u32 %at, %buffer, %lane;
    bar.warp.sync 0xffffffff;
    st.shared.u8 [%at], %v;
    ld.shared.u8 %v, [%at];
""")


def test_vectors_overlap_by_bytes() -> None:
    vector = """
    shl.b32 %v, %lane, {shift};
    add.u32 %v, %v, %buffer;
    setp.lt.u32 %p, %lane, 8;
    @%p st.shared.v4.u32 [%v], {{%lane, %lane, %lane, %lane}};
"""
    assert_clean(vector.format(shift=4))
    assert_race("@%leader st.shared.u32 [%buffer+20], 1;" + vector.format(shift=4))


def test_lanes_that_went_different_ways_race() -> None:
    body = """
    @%even bra EVEN;
    st.shared.u32 [%at], %lane;
    bra MEET;
EVEN:
    ld.shared.u32 %w, [%next];
MEET:
    bar.warp.sync 0xffffffff;
"""
    assert_race(body)
    assert_clean(
        body.replace("EVEN:", "EVEN: bar.warp.sync 0xffffffff;").replace(
            "bra MEET;", "bar.warp.sync 0xffffffff; bra MEET;"
        )
    )


def test_atomics_of_lanes_do_not_race_but_with_plain_accesses() -> None:
    assert_clean("red.shared.add.u32 [%buffer], 1; red.global.add.u32 [%data], 1;")
    assert_race("red.shared.add.u32 [%buffer], 1; @%leader ld.shared.u32 %v, [%buffer];")
    assert_race("red.global.add.u32 [%data], 1; @%leader ld.global.u32 %v, [%data];")


def test_a_lane_copies_what_others_wrote_only_when_it_has_met_them() -> None:
    body = """
    st.shared.u32 [%at], %lane;
    fence.proxy.async.shared::cta;
    {meeting}
    @%leader cp.async.bulk.global.shared::cta.bulk_group [%data], [%buffer], 128;
    @%leader cp.async.bulk.commit_group;
    @%leader cp.async.bulk.wait_group 0;
"""
    assert_clean(body.format(meeting="bar.warp.sync 0xffffffff;"))
    assert_race(body.format(meeting=""), "what was begun by lane 0 of warp 0.*cp.async.bulk")


def test_an_mbarrier_at_which_lanes_arrive_orders_them() -> None:
    body = """
    @%leader mbarrier.init.shared.b64 [%full], 32;
    bar.warp.sync 0xffffffff;
    st.shared.u32 [%at], %lane;
    {arrive}
WAIT:
    mbarrier.try_wait.parity.shared.b64 %p, [%full], {parity};
    @!%p bra WAIT;
    ld.shared.u32 %w, [%next];
"""
    assert_clean(body.format(arrive="mbarrier.arrive.shared.b64 _, [%full];", parity=0))
    assert_race(body.format(arrive="", parity=1))


def test_a_flag_between_lanes_orders_them() -> None:
    body = """
    @%leader bra SET;
    setp.ne.u32 %p, %lane, 1;
    @%p bra END;
WAIT:
    ld.acquire.cta.shared.u32 %v, [%buffer];
    setp.eq.u32 %p, %v, 0;
    @%p bra WAIT;
    ld.shared.u32 %w, [%buffer+124];
    bra END;
SET:
    st.shared.u32 [%buffer+124], 1;
    st.release.cta.shared.u32 [%buffer], 1;
END:
"""
    assert_clean(body)
