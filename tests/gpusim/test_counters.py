# SPDX-License-Identifier: MIT
"""Counters of small kernels, against numbers that are worked out by hand."""

from __future__ import annotations

import gpusim_hopper_gemm
import numpy as np
import pytest
import torch
import ts_gpusim
from ts_gpusim.counters import Counters, MmaCount
from ts_gpusim.machine import Machine

HEAD = """.version 8.6
.target sm_100a
.address_size 64
.const .align 4 .b32 limit = 7;
.visible .entry kernel(.param .u64 source, .param .u64 target)
{
    .shared .align 128 .b8 buffer[4096];
    .shared .align 8 .b64 full;
    .shared .align 4 .b32 columns;
    .local .align 4 .b32 scratch;
    .reg .pred %p, %leader;
    .reg .b16 %h;
    .reg .b32 %tid, %at, %buf, %v, %w<4>, %full, %t, %rank;
    .reg .b64 %src, %dst, %off, %descriptor;
    ld.param.u64 %src, [source];
    ld.param.u64 %dst, [target];
    mov.u32 %tid, %tid.x;
    mov.u32 %buf, buffer;
    mov.u32 %full, full;
    shl.b32 %at, %tid, 4;
    add.u32 %at, %at, %buf;
    mul.wide.u32 %off, %tid, 16;
    add.u64 %src, %src, %off;
    add.u64 %dst, %dst, %off;
    setp.eq.u32 %leader, %tid, 0;
"""
HEAD_INSTRUCTIONS = 11


def count(body: str, threads: int = 32, cluster: int = 1) -> Counters:
    source, target = np.zeros(1024, np.uint32), np.zeros(1024, np.uint32)
    machine = Machine(collect=True)
    shape = (cluster, 1, 1)
    with ts_gpusim.device("sm_100a", execute=machine):
        ts_gpusim.launch_ptx(
            HEAD + body + "\n    ret;\n}",
            "kernel",
            shape,
            (threads, 1, 1),
            [source, target],
            cluster=shape,
        )
    return machine.runs[0].counters


def bytes_of(counters: Counters) -> dict[str, int]:
    """Those that are not zero, without the tensor cores' kinds."""
    named = {name: getattr(counters, name) for name in counters.__struct_fields__}
    return {n: v for n, v in named.items() if v and n not in ("instructions", "mma")}


INIT = """
    @%leader mbarrier.init.shared.b64 [%full], 1;
    bar.sync 0;
"""
WAIT = """
WAIT:
    mbarrier.try_wait.parity.shared.b64 %p, [%full], 0;
    @!%p bra WAIT;
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("ld.const.u32 %v, [limit]; st.local.u32 [scratch], %v; ld.local.u32 %v, [scratch];", {}),
        ("ld.global.u32 %v, [%src];", {"global_loaded": 32 * 4}),
        ("ld.v4.u32 {%w0, %w1, %w2, %w3}, [%src];", {"global_loaded": 32 * 16}),
        ("mov.b16 %h, 1; st.global.u16 [%dst], %h;", {"global_stored": 32 * 2}),
        ("@%leader st.global.u32 [%dst], 1;", {"global_stored": 4}),
        ("red.global.add.u32 [%dst], 1;", {"global_atomic": 32 * 4}),
        ("st.shared.u32 [%at], 1; ld.shared.u32 %v, [%at];",
         {"shared_stored": 128, "shared_loaded": 128}),
        ("st.shared.u32 [%at], 1; atom.shared.add.u32 %v, [%at], 1;",
         {"shared_stored": 128, "shared_atomic": 128}),
        ("cp.async.ca.shared.global [%at], [%src], 16, 8; cp.async.wait_all;",
         {"global_copied_in": 32 * 8, "shared_copied_in": 32 * 16}),
        (INIT + """@%leader mbarrier.arrive.expect_tx.shared.b64 _, [%full], 512;
         @%leader cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
             [%buf], [%src], 512, [%full];""" + WAIT,
         {"global_copied_in": 512, "shared_copied_in": 512, "tma_requests": 1}),
        ("""st.shared.u32 [%at], 1; fence.proxy.async.shared::cta;
         @%leader cp.async.bulk.global.shared::cta.bulk_group [%dst], [%buf], 16;
         cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;""".replace(
            "[%at], 1", "[%at], 1; st.shared.u32 [%at+4], 1; st.shared.v2.u32 [%at+8], {1, 1}"),
         {"shared_stored": 512, "shared_copied_out": 16, "global_copied_out": 16,
          "tma_requests": 1}),
    ],
)  # fmt: skip
def test_bytes_are_counted_where_they_move(body, expected):
    assert bytes_of(count(body)) == expected


def test_an_instruction_counts_once_for_each_warp_whatever_steps_it_takes():
    body = "mapa.shared::cluster.u32 %v, %buf, 0;"  # the machine does it in three
    assert count(body, threads=64).instructions == 2 * (HEAD_INSTRUCTIONS + 1 + 1)


def test_another_ctas_shared_memory_is_counted_apart():
    body = """
    st.shared.u32 [%at], 1;
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    mov.u32 %rank, %cluster_ctarank;
    xor.b32 %rank, %rank, 1;
    mapa.shared::cluster.u32 %v, %at, %rank;
    ld.shared::cluster.u32 %w0, [%v];
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
"""
    counted = bytes_of(count(body, cluster=2))
    assert counted == {"shared_stored": 2 * 128, "distributed_loaded": 2 * 128}


def test_tensor_memory_is_counted_in_words_of_all_lanes():
    body = """
    tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [columns], 32;
    ld.shared.u32 %t, [columns];
    tcgen05.st.sync.aligned.32x32b.x2.b32 [%t], {%tid, %tid};
    tcgen05.wait::st.sync.aligned;
    tcgen05.ld.sync.aligned.32x32b.x1.b32 {%v}, [%t];
    tcgen05.wait::ld.sync.aligned;
    tcgen05.dealloc.cta_group::1.sync.aligned.b32 %t, 32;
"""
    counted = bytes_of(count(body))
    del counted["shared_loaded"]
    assert counted == {"tensor_stored": 2 * 128, "tensor_loaded": 128}


def test_a_gemm_moves_and_multiplies_what_its_shape_says():
    m, n, k, tile = 128, 64, 256, 64
    machine = Machine(collect=True)
    with ts_gpusim.device("sm_90a", execute=machine):
        gemm_input = [torch.ones(m, k), torch.ones(n, k)]
        a, b = (tensor.bfloat16() for tensor in gemm_input)
        gpusim_hopper_gemm.compiled(False)(a, b, torch.zeros(m, n))
    counters = machine.runs[0].counters
    tiles = (m // tile) * (n // tile) * (k // tile)
    loaded = tiles * 2 * tile * tile * 2
    assert bytes_of(counters) == {
        "global_copied_in": loaded,
        "shared_copied_in": loaded,
        "shared_mma": loaded,
        "global_stored": m * n * 4,
        "tma_requests": 2 * tiles,
    }
    assert counters.mma == {"wgmma.bf16": MmaCount(tiles * tile // 16, 2 * m * n * k)}
