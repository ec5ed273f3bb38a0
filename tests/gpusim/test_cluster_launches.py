# SPDX-License-Identifier: MIT
"""clusterlaunchcontrol: persistent kernels take the work of clusters that have not begun (PTX ISA
9.7.13.17 and 9.7.13.18)."""

from __future__ import annotations

import numpy as np
import pytest
import ts_gpusim
from gpusim_kernels import HEADER
from ts_gpusim.faults import Fault
from ts_gpusim.machine import Machine

# Every CTA counts each CTA's work that it does: out[ctaid] += 1, and how often it took some.
PERSISTENT = (
    HEADER
    + """
.visible .entry k(.param .u64 out, .param .u64 taken)
{
    .shared .align 16 .b8 response[16]; .shared .align 8 .b64 bar;
    .reg .pred %p, %first, %leads; .reg .b32 %t, %x, %y, %z, %rank, %w, %n, %phase;
    .reg .b64 %out, %at, %taken; .reg .b128 %response;
    ld.param.u64 %out, [out]; ld.param.u64 %taken, [taken];
    mov.u32 %t, %tid.x; setp.eq.u32 %first, %t, 0; mov.u32 %rank, %cluster_ctarank;
    setp.eq.and.u32 %leads, %rank, 0, %first;
    @%first mbarrier.init.shared.b64 [bar], 1;
    fence.mbarrier_init.release.cluster;
    barrier.cluster.arrive; barrier.cluster.wait;
    mov.u32 %x, %ctaid.x; mov.u32 %y, %ctaid.y; mov.u32 %phase, 0; sub.u32 %x, %x, %rank;
WORK:
    add.u32 %w, %x, %rank; mov.u32 %n, %nctaid.x; mad.lo.u32 %w, %y, %n, %w;
    mad.wide.u32 %at, %w, 4, %out; @%first red.global.add.u32 [%at], 1;
    @%first mbarrier.arrive.expect_tx.shared.b64 _, [bar], 16;
    barrier.cluster.arrive; barrier.cluster.wait;
    @%leads clusterlaunchcontrol.try_cancel.async.shared::cta.mbarrier::complete_tx::bytes\
.multicast::cluster::all.b128 [response], [bar];
WAIT:
    mbarrier.try_wait.parity.shared.b64 %p, [bar], %phase; @!%p bra WAIT;
    xor.b32 %phase, %phase, 1;
    ld.shared.b128 %response, [response];
    clusterlaunchcontrol.query_cancel.is_canceled.pred.b128 %p, %response;
    @%p clusterlaunchcontrol.query_cancel.get_first_ctaid.v4.b32.b128 {%x, %y, %z, _}, %response;
    fence.proxy.async.shared::cta;
    barrier.cluster.arrive; barrier.cluster.wait;
    @!%p bra END;
    @%leads red.global.add.u32 [%taken], 1;
    bra WORK;
END:
    barrier.cluster.arrive; barrier.cluster.wait;
    ret;
}"""
)


@pytest.mark.parametrize("cluster", [1, 2])
def test_every_cta_is_done_once_by_whoever_gets_it(cluster):
    taken_by_seed = set()
    for seed in range(6):
        out, taken = np.zeros(24, "u4"), np.zeros(1, "u4")
        with ts_gpusim.device("sm_100a", execute=Machine(seed)):
            ts_gpusim.launch_ptx(
                PERSISTENT, "k", (8, 3, 1), (64, 1, 1), [out, taken], cluster=(cluster, 1, 1)
            )
        assert (out == 1).all()
        taken_by_seed.add(int(taken[0]))
    assert len(taken_by_seed) > 1  # how much work is handed out, the seed decides
    assert max(taken_by_seed) > 0


def one_thread(text: str) -> None:
    ptx = (
        HEADER
        + f""".visible .entry k()
    {{
        .shared .align 16 .b8 response[16]; .shared .align 8 .b64 bar;
        .reg .pred %p; .reg .b32 %x; .reg .b128 %response;
        mbarrier.init.shared.b64 [bar], 1;
        {text}
        ret;
    }}"""
    )
    with ts_gpusim.device("sm_100a"):
        ts_gpusim.launch_ptx(ptx, "k", (1, 1, 1), (1, 1, 1), [])


TRY = """mbarrier.arrive.expect_tx.shared.b64 _, [bar], 16;
    clusterlaunchcontrol.try_cancel.async.shared::cta.mbarrier::complete_tx::bytes.b128 \
[response], [bar];"""
ASK = """ld.shared.b128 %response, [response];
    clusterlaunchcontrol.query_cancel.get_first_ctaid::x.b32.b128 %x, %response;"""


WAIT = "WAIT: mbarrier.try_wait.parity.shared.b64 %p, [bar], 0; @!%p bra WAIT;"


def test_after_one_that_failed_no_more_is_asked_for():
    with pytest.raises(Fault, match="is executed again after one that failed") as raised:
        one_thread(f"{TRY} {WAIT} {TRY}")
    assert raised.value.kind == "cluster-launch"


def test_a_response_that_cancelled_nothing_has_no_first_cta():
    with pytest.raises(Fault, match="ask is_canceled first"):
        one_thread(f"{TRY} {WAIT} {ASK}")


def test_what_is_no_response_is_a_fault():
    zeros = "mov.u32 %x, 0; mov.b128 %response, {%x, %x, %x, %x};"
    query = "clusterlaunchcontrol.query_cancel.is_canceled.pred.b128 %p, %response;"
    with pytest.raises(Fault, match="is given what is no response"):
        one_thread(zeros + query)
