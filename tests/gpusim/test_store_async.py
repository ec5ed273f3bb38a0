# SPDX-License-Identifier: MIT
"""st.async (PTX ISA 9.7.9.12): stores to another CTA of the cluster, counted by its mbarrier."""

from __future__ import annotations

import numpy as np
import pytest
import ts_gpusim
from gpusim_kernels import HEADER
from ts_gpusim.machine import Machine

LANES = 32
# Each CTA of two sends `from`, which is its own part of `in`, to the other, and stores what it got.
KERNEL = """
.visible .entry k(.param .u64 in, .param .u64 out) {
    .shared .align 16 .b8 box[1024];
    .shared .align 8 .b64 bar;
    .reg .pred %first, %done;
    .reg .b32 %tid, %rank, %other, %box, %bar, %there, %its_bar, %at, %v<4>;
    .reg .b64 %in, %out, %w<4>;
    mov.u32 %tid, %tid.x;
    mov.u32 %rank, %cluster_ctarank;
    xor.b32 %other, %rank, 1;
    mad.lo.u32 %at, %rank, 32, %tid;
    ld.param.u64 %in, [in];
    mad.wide.u32 %in, %at, {bytes}, %in;
    ld.param.u64 %out, [out];
    mad.wide.u32 %out, %at, {bytes}, %out;
    mov.u32 %bar, bar;
    mov.u32 %box, box;
    mad.lo.u32 %box, %tid, {bytes}, %box;
    setp.eq.u32 %first, %tid, 0;
    @%first mbarrier.init.shared.b64 [%bar], 1;
    @%first mbarrier.arrive.expect_tx.shared.b64 _, [%bar], {total};
    fence.mbarrier_init.release.cluster;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    mapa.shared::cluster.u32 %there, %box, %other;
    mapa.shared::cluster.u32 %its_bar, %bar, {barrier_of};
    ld.global{type} {registers}, [%in];
    st.async.shared::cluster.mbarrier::complete_tx::bytes{type} [%there], {registers}, [%its_bar];
WAIT:
    {wait}
    ld.shared{type} {registers}, [%box];
    st.global{type} [%out], {registers};
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    ret;
}
"""
WAIT = """mbarrier.try_wait.parity.acquire.cluster.shared.b64 %done, [%bar], 0;
    @!%done bra WAIT;"""
REGISTERS = {
    ".b32": ("%v0", 4),
    ".b64": ("%w0", 8),
    ".v2.u32": ("{%v0, %v1}", 8),
    ".v4.f32": ("{%v0, %v1, %v2, %v3}", 16),
    ".v2.s64": ("{%w0, %w1}", 16),
}


def kernel(type_: str, wait: str = WAIT, barrier_of: str = "%other") -> str:
    registers, size = REGISTERS[type_]
    text = KERNEL
    for name, value in {
        "bytes": size,
        "total": size * LANES,
        "type": type_,
        "registers": registers,
        "wait": wait,
        "barrier_of": barrier_of,
    }.items():
        text = text.replace(f"{{{name}}}", str(value))
    return HEADER + text


def run(ptx: str, data: np.ndarray, machine: Machine) -> np.ndarray:
    out = np.zeros_like(data)
    with ts_gpusim.device("sm_100a", execute=machine):
        ts_gpusim.launch_ptx(ptx, "k", (2, 1, 1), (LANES, 1, 1), [data, out], cluster=(2, 1, 1))
    return out


def halves(type_: str) -> np.ndarray:
    """[CTA, bytes]: what each sends."""
    size = REGISTERS[type_][1] * LANES
    return np.random.default_rng(size).integers(0, 256, (2, size), dtype=np.uint8)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("type_", REGISTERS)
def test_what_one_cta_sends_the_other_has_when_its_mbarrier_has_counted_the_bytes(type_, seed):
    data = halves(type_)
    assert np.array_equal(run(kernel(type_), data, Machine(seed)), data[::-1])


def test_reading_it_without_waiting_for_the_mbarrier_is_found():
    machine = Machine(collect=True)
    # Its own stores come first, so that there is something to read.
    wait = "st.shared.u32 [%box], %tid;"
    run(kernel(".b32", wait), halves(".b32"), machine)
    assert {finding.kind for finding in machine.findings} == {"race"}
    assert any("st.async" in str(finding) for finding in machine.findings)


def test_an_mbarrier_in_another_cta_than_the_destination_is_refused():
    with pytest.raises(ts_gpusim.Fault, match=r"writes to CTA \d, but its mbarrier is in CTA"):
        run(kernel(".b32", barrier_of="%rank"), halves(".b32"), Machine())
