# SPDX-License-Identifier: MIT
"""st.async, red.async and st.bulk against numpy (PTX ISA 9.7.9.12, 9.7.9.13, 9.7.13.7)."""

from __future__ import annotations

import numpy as np
import pytest
from gpusim_kernels import launch, same
from ts_gpusim.faults import Fault

PAIR = {"grid": (2, 1, 1), "cluster": (2, 1, 1), "threads": 32}


def to_the_other_cta(store: str, bytes_: int, first: int, same_cta: bool = True) -> np.ndarray:
    """What thread i of CTA 0 does to word i of CTA 1, which was `first`."""
    barrier = "mapa.shared::cluster.u32 %far_bar, %far_bar, 1;" if same_cta else ""
    ptx = f""".visible .entry k(.param .u64 out)
    {{
        .shared .align 16 .b8 words[512]; .shared .align 8 .b64 bar;
        .reg .pred %p, %q; .reg .b32 %t, %a, %far, %far_bar, %d; .reg .b64 %out, %w;
        ld.param.u64 %out, [out]; mov.u32 %t, %tid.x;
        mov.u32 %a, words; mad.lo.u32 %a, %t, {bytes_}, %a;
        mov.u32 %d, {first}; {"st.shared.u32 [%a], %d;" if bytes_ == 4 else ""}
        setp.eq.u32 %p, %t, 0;
        @%p mbarrier.init.shared.b64 [bar], 1;
        mov.u32 %d, %cluster_ctarank; setp.eq.and.u32 %q, %d, 1, %p;
        @%q mbarrier.arrive.expect_tx.shared.b64 _, [bar], {32 * bytes_};
        fence.mbarrier_init.release.cluster; barrier.cluster.arrive; barrier.cluster.wait;
        mov.u32 %d, %cluster_ctarank; setp.eq.u32 %q, %d, 1; @%q bra WAIT;
        mapa.shared::cluster.u32 %far, %a, 1; mov.u32 %far_bar, bar; {barrier}
        cvt.u64.u32 %w, %t; {store} bra END;
        WAIT: mbarrier.try_wait.parity.shared.b64 %p, [bar], 0; @!%p bra WAIT;
        ld.shared.u32 %d, [%a]; mad.wide.u32 %out, %t, 4, %out; st.global.u32 [%out], %d;
        END: barrier.cluster.arrive; barrier.cluster.wait; ret;
    }}"""
    out = np.zeros(32, "u4")
    launch(ptx, out, **PAIR)
    return out


TO = "mbarrier::complete_tx::bytes"
LANES = np.arange(32, dtype="u4")


@pytest.mark.parametrize(
    ("store", "bytes_"),
    [
        (f"st.async.shared::cluster.{TO}.b32 [%far], %t, [%far_bar];", 4),
        (f"st.async.weak.shared::cluster.{TO}.u64 [%far], %w, [%far_bar];", 8),
        (f"st.async.shared::cluster.{TO}.v2.u32 [%far], {{%t, %t}}, [%far_bar];", 8),
        (f"st.async.shared::cluster.{TO}.v4.b32 [%far], {{%t, %t, %t, %t}}, [%far_bar];", 16),
    ],
)
def test_asynchronous_stores_are_there_when_their_mbarrier_says_so(store, bytes_):
    assert same(to_the_other_cta(store, bytes_, 7), LANES)


def test_the_mbarrier_of_an_asynchronous_store_is_where_the_bytes_go():
    store = f"st.async.shared::cluster.{TO}.b32 [%far], %t, [%far_bar];"
    with pytest.raises(Fault, match="goes to CTA 1, but its mbarrier is in CTA 0") as raised:
        to_the_other_cta(store, 4, 7, same_cta=False)
    assert raised.value.kind == "mbarrier"


@pytest.mark.parametrize(
    ("operation", "rule"),
    [
        ("inc.u32", lambda old, new: np.where(old >= new, 0, old + 1)),
        ("dec.u32", lambda old, new: np.where((old == 0) | (old > new), new, old - 1)),
        ("min.u32", np.minimum), ("max.s32", np.maximum), ("add.u32", np.add),
        ("and.b32", np.bitwise_and), ("or.b32", np.bitwise_or), ("xor.b32", np.bitwise_xor),
    ],
)  # fmt: skip
def test_asynchronous_reductions(operation, rule):
    text = f"red.async.relaxed.cluster.shared::cluster.{TO}.{operation} [%far], %t, [%far_bar];"
    expected = rule(np.full(32, 13, "u4"), LANES)
    assert same(to_the_other_cta(text, 4, 13), expected.astype("u4"))


@pytest.mark.parametrize("size", [0, 8, 200, 512])
def test_a_bulk_store_fills_with_zeros(size):
    ptx = f""".visible .entry k(.param .u64 out)
    {{
        .shared .align 16 .b8 words[512]; .reg .b32 %a, %t; .reg .b64 %d, %e, %out, %n;
        ld.param.u64 %out, [out]; mov.u32 %t, %tid.x; mad.wide.u32 %out, %t, 16, %out;
        mov.u32 %a, words; mad.lo.u32 %a, %t, 16, %a; st.shared.v2.b64 [%a], {{-1, -1}};
        bar.warp.sync -1; mov.u64 %n, {size};
        .reg .pred %p; setp.eq.u32 %p, %t, 0; @%p st.bulk.weak.shared::cta [words], %n, 0;
        bar.warp.sync -1; ld.shared.v2.b64 {{%d, %e}}, [%a]; st.global.v2.b64 [%out], {{%d, %e}};
        ret;
    }}"""
    out = np.zeros(512, "u1")
    launch(ptx, out)
    assert same(out, np.where(np.arange(512) < size, 0, 255).astype("u1"))
