# SPDX-License-Identifier: MIT
"""What the software GPU says about kernels that synchronise wrongly, whatever order a run takes."""

from __future__ import annotations

import pytest
import torch
import ts_gpusim
from ts_gpusim.faults import Fault, Finding
from ts_gpusim.machine import Machine

SEEDS = range(4)
BYTES = 512  # of the tensor, and of the buffer in shared memory

HEAD = """.version 8.6
.target sm_100a
.address_size 64
.visible .entry kernel(.param .u64 source, .param .u64 target)
{
    .shared .align 128 .b8 buffer[512];
    .shared .align 8 .b64 full;
    .shared .align 8 .b64 empty;
    .shared .align 4 .b32 columns;
    .reg .pred %p, %leader, %first, %second;
    .reg .b32 %tid, %warp, %lane, %at, %buf, %v, %w, %x, %full, %empty, %t;
    .reg .b64 %src, %dst, %off, %state;
    ld.param.u64 %src, [source];
    ld.param.u64 %dst, [target];
    mov.u32 %tid, %tid.x;
    shr.u32 %warp, %tid, 5;
    and.b32 %lane, %tid, 31;
    mov.u32 %buf, buffer;
    mov.u32 %full, full;
    mov.u32 %empty, empty;
    shl.b32 %at, %tid, 2;
    add.u32 %at, %at, %buf;
    setp.eq.u32 %leader, %tid, 0;
    setp.eq.u32 %first, %warp, 0;
    setp.eq.u32 %second, %warp, 1;
"""
TAIL = """
    ret;
}
"""
INIT = """
    @%leader mbarrier.init.shared.b64 [%full], 1;
    @%leader mbarrier.init.shared.b64 [%empty], 32;
    @%leader fence.mbarrier_init.release.cluster;
    bar.sync 0;
"""
LOAD = """
    @%leader mbarrier.arrive.expect_tx.shared.b64 _, [%full], 512;
    @%leader cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
        [%buf], [%src], 512, [%full];
"""


def wait(barrier: str, parity: int, label: str) -> str:
    return f"""
{label}:
    mbarrier.try_wait.parity.shared.b64 %p, [{barrier}], {parity};
    @!%p bra {label};
"""


def run(body: str, seed: int, threads: int = 128) -> tuple[list[Finding], torch.Tensor]:
    source = torch.arange(BYTES // 4, dtype=torch.int32)
    target = torch.zeros(BYTES // 4, dtype=torch.int32)
    machine = Machine(seed, collect=True)
    with ts_gpusim.device("sm_100a", execute=machine):
        ts_gpusim.launch_ptx(
            HEAD + body + TAIL, "kernel", (1, 1, 1), (threads, 1, 1), [source, target]
        )
    return machine.findings, target


def findings(body: str, threads: int = 128) -> list[list[Finding]]:
    return [run(body, seed, threads)[0] for seed in SEEDS]


NEIGHBOUR = """
    st.shared.u32 [%at], %tid;
    {between}
    xor.b32 %v, %at, 128;
    ld.shared.u32 %w, [%v];
"""


def test_reading_what_another_warp_writes_without_a_barrier_is_a_race() -> None:
    body = "st.shared.u32 [%at], 0; bar.sync 0;" + NEIGHBOUR.format(between="")
    for found in findings(body):
        assert found and all(finding.kind == "race" for finding in found)
        assert "shared memory" in found[0].sentence and "st.shared.u32" in found[0].sentence


def test_with_a_barrier_between_them_it_is_none() -> None:
    assert findings(NEIGHBOUR.format(between="bar.sync 0;")) == [[]] * len(SEEDS)


def test_threads_that_only_arrive_tell_what_they_wrote() -> None:
    body = """
    @%first st.shared.u32 [%at], %tid;
    @%first bar.arrive 1, 64;
    @%second bar.sync 1, 64;
    xor.b32 %v, %at, 128;
    @%second ld.shared.u32 %w, [%v];
"""
    assert findings(body) == [[]] * len(SEEDS)


def test_threads_of_a_warp_that_meet_do_not_race() -> None:
    body = NEIGHBOUR.format(between="bar.warp.sync 0xffffffff;").replace("128", "4")
    assert findings(body, threads=32) == [[]] * len(SEEDS)


def test_a_copy_is_read_only_when_its_mbarrier_says_so() -> None:
    body = INIT + "@%second st.shared.u32 [%at], 0; bar.sync 0; fence.proxy.async; bar.sync 0;"
    right = body + LOAD + wait("%full", 0, "W") + "ld.shared.u32 %w, [%at];"
    assert findings(right) == [[]] * len(SEEDS)
    wrong = body + LOAD + "@%second ld.shared.u32 %w, [%at];" + wait("%full", 0, "W")
    for found in findings(wrong):
        assert found and "cp.async.bulk" in found[0].sentence


def test_a_buffer_is_filled_again_only_when_it_has_been_read() -> None:
    read = "@%second ld.shared.u32 %w, [%at];"
    release = "@%second mbarrier.arrive.shared.b64 _, [%empty];"
    begin = INIT + LOAD + wait("%full", 0, "W")
    again = wait("%empty", 0, "E") + LOAD + wait("%full", 1, "V")
    assert findings(begin + read + release + again, threads=64) == [[]] * len(SEEDS)
    for found in findings(begin + release + read + again, threads=64):
        assert found and "ld.shared" in found[0].sentence


def test_what_threads_wrote_needs_a_proxy_fence_before_a_copy_reads_it() -> None:
    def store(fence: str) -> str:
        return f"""
    st.shared.u32 [%at], %tid;
    {fence}
    bar.sync 0;
    @%leader cp.async.bulk.global.shared::cta.bulk_group [%dst], [%buf], 512;
    @%leader cp.async.bulk.commit_group;
    @%leader cp.async.bulk.wait_group 0;
"""

    for seed in SEEDS:
        found, target = run(store("fence.proxy.async.shared::cta;"), seed)
        assert found == [] and target.equal(torch.arange(BYTES // 4, dtype=torch.int32))
        found, _ = run(store(""), seed)
        assert found and "no fence.proxy.async lies between them" in found[0].sentence


def test_a_buffer_is_written_again_only_when_the_copy_out_of_it_is_waited_for() -> None:
    def again(wait_group: str) -> str:
        return f"""
    st.shared.u32 [%at], %tid;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @%leader cp.async.bulk.global.shared::cta.bulk_group [%dst], [%buf], 512;
    @%leader cp.async.bulk.commit_group;
    {wait_group}
    bar.sync 0;
    st.shared.u32 [%at], 0;
    @%leader cp.async.bulk.wait_group 0;
"""

    assert findings(again("@%leader cp.async.bulk.wait_group.read 0;")) == [[]] * len(SEEDS)
    for found in findings(again("")):
        assert found and "cp.async.bulk.global" in found[0].sentence


TENSOR_MEMORY = """
    @%first tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [columns], 32;
    bar.sync 0;
    ld.shared.u32 %t, [columns];
    shl.b32 %x, %warp, 21;
    add.u32 %t, %t, %x;
    tcgen05.st.sync.aligned.32x32b.x1.b32 [%t], {{%tid}};
    {wait_store}
    tcgen05.fence::before_thread_sync;
    bar.sync 0;
    tcgen05.fence::after_thread_sync;
    @%first bra FREE;
    bra DONE;
FREE:
    tcgen05.ld.sync.aligned.32x32b.x1.b32 {{%w}}, [%t];
    tcgen05.wait::ld.sync.aligned;
    tcgen05.dealloc.cta_group::1.sync.aligned.b32 %t, 32;
DONE:
"""


def test_a_warp_reads_back_what_it_stored_in_tensor_memory() -> None:
    body = TENSOR_MEMORY.format(wait_store="tcgen05.wait::st.sync.aligned;")
    assert findings(body) == [[]] * len(SEEDS)


def test_a_race_with_a_write_a_million_accesses_ago_names_both() -> None:
    body = """
        @%second st.shared.u32 [%at], %tid;
        @!%first bra end;
        mov.u32 %t, 0;
    again:
        st.shared.u32 [%at], %t;
        ld.shared.u32 %v, [%at];
        add.u32 %t, %t, 1;
        setp.lt.u32 %p, %t, 600000;
        @%p bra again;
        ld.shared.u32 %v, [%at+128];
    end:
    """
    (race,), _ = run(body, seed=0, threads=64)
    assert race.times == 32
    assert "ld.shared.u32 %v, [%at+128]" in race.sentence
    assert "st.shared.u32 [%at], %tid" in race.sentence


def test_without_collecting_the_launch_raises() -> None:
    source, target = torch.zeros(128, dtype=torch.int32), torch.zeros(128, dtype=torch.int32)
    ptx = HEAD + "st.shared.u32 [%at], 0; bar.sync 0;" + NEIGHBOUR.format(between="") + TAIL
    with ts_gpusim.device("sm_100a"), pytest.raises(Fault, match="race"):
        ts_gpusim.launch_ptx(ptx, "kernel", (1, 1, 1), (128, 1, 1), [source, target])


@pytest.mark.parametrize(
    "body, kind, words",
    [
        (INIT + wait("%full", 0, "W"), "deadlock", "1 of 1 arrivals"),
        ("@%first bar.sync 1, 64;", "deadlock", "barrier 1 with 32 threads of 64"),
        ("mbarrier.arrive.shared.b64 _, [%full];", "mbarrier", "no mbarrier was initialised"),
        (INIT + "mbarrier.arrive.shared.b64 _, [%full], 2;", "mbarrier", "more threads arrive"),
        (
            "@%first tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [columns], 32;",
            "tensor-memory",
            "not freed",
        ),
        ("ld.shared.u32 %w, [%at];", "uninitialised", "never written"),
        ("ld.shared.u32 %w, [%at+4096];", "out-of-bounds", "outside the CTA's"),
        ("ld.global.u32 %w, [%dst+512];", "out-of-bounds", "past the end of"),
        ("ld.global.u32 %w, [%dst+2];", "misaligned", "not aligned to 4"),
    ],
)
def test_a_fault_says_what_and_where(body: str, kind: str, words: str) -> None:
    with pytest.raises(Fault, match=words) as raised:
        run(body, 0)
    assert raised.value.kind == kind
    assert "warp" in str(raised.value) or kind == "tensor-memory"


def test_the_same_seed_is_the_same_run() -> None:
    body = INIT + LOAD + "@%second ld.shared.u32 %w, [%at];" + wait("%full", 0, "W")
    body = "st.shared.u32 [%at], 0; bar.sync 0;" + body
    for seed in SEEDS:
        assert run(body, seed)[0] == run(body, seed)[0]
