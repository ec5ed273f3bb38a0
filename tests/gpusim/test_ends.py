# SPDX-License-Identifier: MIT
"""What a CTA leaves behind when it ends, and what findings and faults tell beside a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import ts_gpusim
from ts_gpusim.faults import Fault, Finding
from ts_gpusim.machine import Machine

KERNEL = """.version 9.0
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 source, .param .u64 target)
{{
    .shared .align 128 .b8 buffer[512];
    .shared .align 8 .b64 full;
    .reg .pred %p, %leader;
    .reg .b32 %tid, %at, %buffer, %full, %v;
    .reg .b64 %src, %dst;
    ld.param.u64 %src, [source];
    ld.param.u64 %dst, [target];
    mov.u32 %tid, %tid.x;
    mov.u32 %buffer, buffer;
    mov.u32 %full, full;
    shl.b32 %at, %tid, 2;
    add.u32 %at, %at, %buffer;
    setp.eq.u32 %leader, %tid, 0;
    @%leader mbarrier.init.shared.b64 [%full], 1;
    @%leader fence.mbarrier_init.release.cluster;
    bar.sync 0;
    {body}
    ret;
}}"""
EXPECT = "@%leader mbarrier.arrive.expect_tx.shared.b64 _, [%full], 512;\n"
ARRIVE = "@%leader mbarrier.arrive.shared.b64 _, [%full];\n"
COPY = """
    @%leader cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
        [%buffer], [%src], 512, [%full];
"""
WAIT = """
wait:
    mbarrier.try_wait.parity.shared.b64 %p, [%full], 0;
    @!%p bra wait;
"""


def findings(body: str) -> list[Finding]:
    machine = Machine(seed=1, collect=True)
    tensors = [np.zeros(128, np.uint32) for _ in range(2)]
    with ts_gpusim.device("sm_90a", execute=machine):
        ptx = KERNEL.format(body=body)
        ts_gpusim.launch_ptx(ptx, "kernel", (1, 1, 1), (128, 1, 1), tensors)
    return machine.findings


def test_a_copy_that_nobody_waits_for_is_in_no_order_with_the_end_of_its_cta():
    assert not findings(EXPECT + COPY + WAIT)
    (found,) = findings(EXPECT + COPY)
    assert found.kind == "race"
    assert "cp.async.bulk.shared::cluster" in found.sentence
    assert "is in no order with the end of that CTA" in found.sentence


def test_a_copy_that_one_thread_waits_for_is():
    assert not findings(EXPECT + COPY + "@!%leader bra end;" + WAIT + "end:")


STORE = """
    st.shared.u32 [%at], %tid;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @!%leader bra end;
    cp.async.bulk.global.shared::cta.bulk_group [%dst], [%buffer], 512;
    cp.async.bulk.commit_group;
    {wait}
end:
"""


def test_a_bulk_store_has_read_shared_memory_before_its_cta_ends():
    assert not findings(STORE.format(wait="cp.async.bulk.wait_group.read 0;"))
    (found,) = findings(STORE.format(wait=""))
    assert "is in no order with the end of that CTA" in found.sentence


def test_bytes_that_no_copy_brings_are_named():
    (found,) = findings("@%leader mbarrier.expect_tx.shared.b64 [%full], 512;")
    assert found.kind == "mbarrier"
    assert "its mbarrier at 0x600 still expects 512 bytes" in found.sentence


def test_bytes_that_nobody_expects_are_named():
    found = [f for f in findings(ARRIVE + WAIT + "bar.sync 0;" + COPY) if f.kind == "mbarrier"]
    assert "was brought 512 bytes more than it had been told to expect" in found[0].sentence


RACE = "st.shared.u32 [%at], %tid;\nbar.sync 0;\nst.shared.u32 [%buffer], %tid;\n"


def test_a_finding_has_the_instructions_at_which_its_warp_had_synchronised():
    (found,) = (f for f in findings(RACE) if "lane" not in f.sentence)
    assert found.kind == "race"
    # The newest first: that of the body, then that after the initialisation.
    assert [line.split(";")[0] for line in found.history] == ["`bar.sync 0", "`bar.sync 0"]
    assert "PTX line 23" in found.history[0] and "PTX line 21" in found.history[1]
    assert "\n  had synchronised at `bar.sync 0;`" in str(found)


def test_a_fault_has_its_history_and_what_was_found_before_it():
    with pytest.raises(Fault, match="out-of-bounds") as raised:
        findings(RACE + "st.shared.u32 [%at+4096], %tid;")
    assert raised.value.history[0].startswith("`bar.sync 0;`")
    assert {found.kind for found in raised.value.before} == {"race"}


def test_lanes_of_one_arrival_that_count_in_two_phases_are_named():
    """With a count that is one too low, the 32nd lane would be the first of the next phase."""
    begin = "mbarrier.inval.shared.b64 [%full]; mbarrier.init.shared.b64 [%full], {count};"
    body = f"@!%leader bra made; {begin}\nmade: bar.sync 0; setp.ge.u32 %p, %tid, 32; @%p bra end;"
    body += "mbarrier.arrive.shared.b64 _, [%full];\nend:"
    assert not findings(body.format(count=32))
    (found,) = findings(body.format(count=31))
    assert found.kind == "mbarrier"
    assert "the lanes of one arrival count in two phases" in found.sentence
