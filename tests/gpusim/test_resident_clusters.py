# SPDX-License-Identifier: MIT
"""Clusters that wait for each other through global memory are on the device together."""

from __future__ import annotations

import pytest
import torch
import ts_gpusim
from ts_gpusim.faults import Fault
from ts_gpusim.machine import Machine

SEEDS = range(6)

HEAD = """.version 8.6
.target sm_100a
.address_size 64
.visible .entry kernel(.param .u64 flags, .param .u64 data)
{
    .reg .pred %p, %q, %leader;
    .reg .b32 %tid, %cta, %ctas, %v, %w, %n;
    .reg .b64 %flags, %data, %own, %next, %off;
    ld.param.u64 %flags, [flags];
    ld.param.u64 %data, [data];
    mov.u32 %tid, %tid.x;
    mov.u32 %cta, %ctaid.x;
    mov.u32 %ctas, %nctaid.x;
    setp.eq.u32 %leader, %tid, 0;
    mul.wide.u32 %off, %cta, 4;
    add.u64 %own, %flags, %off;
    add.u64 %next, %own, 4;
"""


def run(
    body: str, ctas: int, seed: int = 0, sms: int = 148, threads: int = 64, cluster: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """The flags and the data, 4 bytes for each CTA (one flag more), after the launch."""
    flags = torch.zeros(ctas + 1, dtype=torch.int32)
    data = torch.zeros(ctas, dtype=torch.int32)
    with ts_gpusim.device("sm_100a", sms=sms, execute=Machine(seed)):
        ts_gpusim.launch_ptx(
            HEAD + body + "ret;\n}",
            "kernel",
            (ctas, 1, 1),
            (threads, 1, 1),
            [flags, data],
            cluster=(cluster, 1, 1),
        )
    return flags, data


# Every CTA counts itself in, waits until all have, and then reads what its neighbour wrote.
GRID_BARRIER = """
    add.u64 %data, %data, %off;
    @%leader st.global.u32 [%data], %cta;
    bar.sync 0;
    @!%leader bra WAITED;
    atom.add.acq_rel.gpu.global.u32 %v, [%flags], 1;
ARRIVING:
    ld.acquire.gpu.global.u32 %v, [%flags];
    setp.lt.u32 %p, %v, %ctas;
    @%p bra ARRIVING;
WAITED:
    bar.sync 0;
    setp.eq.u32 %q, %cta, 0;
    mul.wide.u32 %off, %ctas, 4;
    @%q add.u64 %data, %data, %off;
    @%leader ld.global.u32 %w, [%data+-4];
    @%leader st.global.u32 [%own+4], %w;
"""

# A CTA waits for the flag of the next one, adds one, and sets its own.
CHAIN = """
    setp.eq.u32 %p, %cta, {last};
    mov.u32 %v, 0;
    @!%leader bra DONE;
    @%p bra SET;
WAIT:
    {poll}
    setp.eq.u32 %q, %v, 0;
    @%q bra WAIT;
SET:
    add.u32 %v, %v, 1;
    {set}
DONE:
"""
ACQUIRE = "ld.acquire.gpu.global.u32 %v, [%next];"
RELEASE = "st.release.gpu.global.u32 [%own], %v;"


@pytest.mark.parametrize("cluster", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_ctas_meet_at_a_barrier_of_the_grid(seed: int, cluster: int) -> None:
    flags, _ = run(GRID_BARRIER, ctas=12, seed=seed, cluster=cluster)
    assert flags[0] == 12
    assert flags[1:].tolist() == [11, *range(11)]


@pytest.mark.parametrize("seed", SEEDS)
def test_ctas_may_wait_for_those_that_begin_later(seed: int) -> None:
    flags, _ = run(CHAIN.format(last=19, poll=ACQUIRE, set=RELEASE), ctas=20, seed=seed)
    assert flags[:20].tolist() == list(range(20, 0, -1))


@pytest.mark.parametrize(
    ("poll", "set_"),
    [
        ("ld.volatile.global.u32 %v, [%next];", "st.volatile.global.u32 [%own], %v;"),
        ("atom.or.global.b32 %v, [%next], 0;", "atom.exch.global.b32 %v, [%own], %v;"),
        ("atom.cas.acquire.gpu.global.b32 %v, [%next], 0, 0;", RELEASE),
        ("nanosleep.u32 20; ld.relaxed.gpu.global.u32 %v, [%next];", RELEASE),
    ],
)
def test_a_flag_may_be_polled_in_every_way(poll: str, set_: str) -> None:
    flags, _ = run(CHAIN.format(last=4, poll=poll, set=set_), ctas=5)
    assert flags[:5].tolist() == [5, 4, 3, 2, 1]


def test_a_lock_is_held_by_one_cta_at_a_time() -> None:
    body = """
    @!%leader bra DONE;
LOCK:
    atom.cas.acquire.gpu.global.b32 %v, [%flags], 0, 1;
    setp.ne.u32 %p, %v, 0;
    @%p bra LOCK;
    ld.global.u32 %w, [%data];
    add.u32 %w, %w, 1;
    st.global.u32 [%data], %w;
    st.release.gpu.global.u32 [%flags], 0;
DONE:
"""
    for seed in SEEDS:
        _, data = run(body, ctas=9, seed=seed)
        assert data[0] == 9


def test_a_thread_polls_while_another_of_its_warp_goes_on() -> None:
    body = """
    setp.eq.u32 %p, %tid, 1;
    @%p bra SET;
    @!%leader bra DONE;
WAIT:
    ld.acquire.gpu.global.u32 %v, [%flags];
    setp.eq.u32 %q, %v, 0;
    @%q bra WAIT;
    bra DONE;
SET:
    st.release.gpu.global.u32 [%flags], 1;
DONE:
"""
    flags, _ = run(body, ctas=1, threads=32)
    assert flags[0] == 1


def test_threads_that_test_an_mbarrier_wait_for_the_copy_that_completes_it() -> None:
    body = """
    .shared .align 16 .b8 buffer[16];
    .shared .align 8 .b64 full;
    .reg .b32 %full, %buffer;
    mov.u32 %full, full;
    mov.u32 %buffer, buffer;
    @!%leader bra DONE;
    mbarrier.init.shared.b64 [%full], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared.b64 _, [%full], 16;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
        [%buffer], [%data], 16, [%full];
WAIT:
    mbarrier.test_wait.parity.shared.b64 %p, [%full], 0;
    @!%p bra WAIT;
DONE:
"""
    for seed in SEEDS:
        run(body, ctas=4, seed=seed)


def test_ctas_that_nobody_wakes_are_a_deadlock_that_says_what_they_read() -> None:
    with pytest.raises(Fault, match="no thread can go on") as raised:
        run(CHAIN.format(last=99, poll=ACQUIRE, set=RELEASE), ctas=3)
    assert raised.value.kind == "deadlock"
    table = str(raised.value)
    for cta in range(3):
        assert f"CTA ({cta}, 0, 0), warp 0, lanes 0x1, at `ld.acquire.gpu.global.u32" in table
    assert "reads again and again 4 bytes of global memory" in table
    assert "(argument 0 [4] i32, byte 4), which stay 0x0" in table


def test_a_wait_for_more_ctas_than_the_device_holds_is_a_deadlock_that_says_so() -> None:
    with pytest.raises(Fault, match="8 clusters have not begun, since the device holds 4") as fault:
        run(GRID_BARRIER, ctas=12, sms=4)
    assert fault.value.kind == "deadlock"
    run(GRID_BARRIER, ctas=12, sms=12)


def test_ctas_wait_for_those_before_them_however_many_there_are() -> None:
    body = CHAIN.replace("[%next]", "[%own+-4]").replace("{last}", "0")
    body = body.format(poll="ld.acquire.gpu.global.u32 %v, [%own+-4];", set=RELEASE)
    flags, _ = run(body, ctas=40, sms=2)
    assert flags[:40].tolist() == list(range(1, 41))


def test_the_same_seed_is_the_same_run() -> None:
    body = """
    @%leader atom.add.global.u32 %v, [%flags], 1;
    add.u64 %data, %data, %off;
    @%leader st.global.u32 [%data], %v;
WAIT:
    ld.acquire.gpu.global.u32 %w, [%flags];
    setp.lt.u32 %p, %w, %ctas;
    @%p bra WAIT;
    @%leader atom.add.global.u32 %v, [%own+4], %v;
"""
    for seed in SEEDS:
        first, second = (run(body, ctas=7, seed=seed) for _ in range(2))
        assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
