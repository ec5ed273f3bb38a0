# SPDX-License-Identifier: MIT
"""mbarriers beyond what pipelines use: states, arrivals that drop out, relaxed ones (PTX ISA
9.7.13.15), and barriers that reduce (9.7.13.1)."""

from __future__ import annotations

import numpy as np
import pytest
from gpusim_kernels import execute, launch, same
from ts_gpusim.faults import Fault

TID = np.arange(64, dtype="u4")


def with_mbarrier(count: int, text: str) -> np.ndarray:
    """What one thread leaves in %d[0..3]."""
    ptx = f""".visible .entry k(.param .u64 out)
    {{
        .shared .align 8 .b64 bar; .reg .pred %p, %q; .reg .b32 %d<4>; .reg .b64 %s<3>, %out;
        ld.param.u64 %out, [out]; mov.u32 %d0, 0; mov.u32 %d1, 0; mov.u32 %d2, 0; mov.u32 %d3, 0;
        mbarrier.init.shared.b64 [bar], {count};
        {text}
        st.global.v4.u32 [%out], {{%d0, %d1, %d2, %d3}};
        ret;
    }}"""
    out = np.zeros(4, "u4")
    launch(ptx, out, threads=1)
    return out


def test_a_state_has_the_count_that_was_pending_before_the_arrival():
    text = """mbarrier.arrive.shared.b64 %s0, [bar]; mbarrier.arrive.shared.b64 %s1, [bar], 2;
        mbarrier.pending_count.b64 %d0, %s0; mbarrier.pending_count.b64 %d1, %s1;"""
    assert with_mbarrier(5, text).tolist() == [5, 4, 0, 0]


def test_a_state_waits_for_its_own_phase():
    text = """mbarrier.arrive.noComplete.shared.b64 %s0, [bar], 1;
        mbarrier.test_wait.shared.b64 %p, [bar], %s0; selp.u32 %d0, 1, 0, %p;
        mbarrier.arrive.shared.b64 %s1, [bar];
        mbarrier.test_wait.shared.b64 %p, [bar], %s0; selp.u32 %d1, 1, 0, %p;
        mbarrier.try_wait.shared.b64 %p, [bar], %s1; selp.u32 %d2, 1, 0, %p;"""
    assert with_mbarrier(2, text).tolist() == [0, 1, 1, 0]


def test_who_drops_out_is_not_waited_for_again():
    text = """mbarrier.arrive.shared.b64 %s0, [bar]; mbarrier.arrive_drop.shared.b64 %s1, [bar];
        mbarrier.test_wait.shared.b64 %p, [bar], %s1; selp.u32 %d0, 1, 0, %p;
        mbarrier.arrive.shared.b64 %s2, [bar]; mbarrier.pending_count.b64 %d1, %s2;
        mbarrier.test_wait.shared.b64 %p, [bar], %s2; selp.u32 %d2, 1, 0, %p;"""
    assert with_mbarrier(2, text).tolist() == [1, 1, 1, 0]


def test_an_arrival_that_must_not_complete_is_a_fault_if_it_does():
    with pytest.raises(Fault, match=r"\.noComplete is the last of its phase") as raised:
        with_mbarrier(1, "mbarrier.arrive.noComplete.shared.b64 %s0, [bar], 1;")
    assert raised.value.kind == "mbarrier"


@pytest.mark.parametrize("semantics", ["", ".release.cta", ".relaxed.cta"])
def test_a_relaxed_arrival_orders_nothing(semantics):
    # Thread 0 writes and arrives; thread 32 waits and reads.
    ptx = f""".visible .entry k(.param .u64 out)
    {{
        .shared .align 8 .b64 bar; .shared .align 4 .b32 word;
        .reg .pred %p; .reg .b32 %t, %d; .reg .b64 %out;
        ld.param.u64 %out, [out]; mov.u32 %t, %tid.x; setp.eq.u32 %p, %t, 0;
        @%p mbarrier.init.shared.b64 [bar], 1;
        bar.sync 0;
        setp.ge.u32 %p, %t, 32; @%p bra WAIT;
        setp.ne.u32 %p, %t, 0; @%p exit;
        mov.u32 %d, 7; st.shared.u32 [word], %d;
        mbarrier.arrive{semantics}.shared::cta.b64 _, [bar];
        exit;
        WAIT: mbarrier.try_wait.parity.shared.b64 %p, [bar], 0; @!%p bra WAIT;
        ld.shared.u32 %d, [word]; st.global.u32 [%out], %d;
        ret;
    }}"""
    out = np.zeros(1, "u4")
    if "relaxed" not in semantics:
        launch(ptx, out, threads=64)
        assert out[0] == 7
        fenced = ptx.replace("mbarrier.arrive.", "fence.acq_rel.cta; mbarrier.arrive.relaxed.cta.")
        fenced = fenced.replace(".relaxed.cta.release.cta", ".relaxed.cta")
        return launch(fenced, out, threads=64)
    with pytest.raises(Fault, match="is in no order with a write by warp 0") as raised:
        launch(ptx, out, threads=64)
    assert raised.value.kind == "race"


@pytest.mark.parametrize("semantics", [".release", ".relaxed"])
def test_a_relaxed_arrival_at_the_clusters_barrier_orders_nothing(semantics):
    ptx = f""".visible .entry k(.param .u64 out)
    {{
        .shared .align 4 .b32 word; .reg .pred %p; .reg .b32 %t, %a, %d; .reg .b64 %out;
        ld.param.u64 %out, [out]; mov.u32 %t, %cluster_ctarank; setp.eq.u32 %p, %t, 0;
        mov.u32 %a, word; mapa.shared::cluster.u32 %a, %a, 1;
        mov.u32 %d, 7; @%p st.shared::cluster.u32 [%a], %d;
        barrier.cluster.arrive{semantics}.aligned; barrier.cluster.wait.acquire.aligned;
        @!%p ld.shared.u32 %d, [word]; @!%p st.global.u32 [%out], %d;
        ret;
    }}"""
    out = np.zeros(1, "u4")
    shape = {"grid": (2, 1, 1), "cluster": (2, 1, 1), "threads": 1}
    if semantics == ".release":
        return launch(ptx, out, **shape)
    with pytest.raises(Fault, match="is in no order with a write"):
        launch(ptx, out, **shape)


@pytest.mark.parametrize("true", [0, 1, 40, 63, 64])
def test_a_barrier_tells_how_many_threads_are_in_favour(true):
    text = """setp.lt.u32 p, a, b;
        barrier.cta.red.popc.aligned.u32 d, 0, p; bar.red.and.pred all, 1, 64, p;
        bar.red.or.pred any, 0, p; bar.red.popc.u32 e, 1, 64, !p;"""
    names = {"d": "u4", "e": "u4", "all": bool, "any": bool}
    d, e, all_, any_ = execute(text, names, {"p": "pred"}, a=TID, b=np.full(64, true, "u4"))
    assert same(d, np.full(64, true, "u4"))
    assert same(e, np.full(64, 64 - true, "u4"))
    assert (all_ == (true == 64)).all()
    assert (any_ == (true > 0)).all()
