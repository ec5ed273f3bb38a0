# SPDX-License-Identifier: MIT
"""Small kernels with one piece that is right or wrong, and what the software GPU says of each.

Every kernel begins with the same registers and shared memory. `{piece}` in its body stands for the
right statements or for the wrong ones, so that the difference is all that the bug is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import ts_gpusim
from gpusim_tensor_map import tensor_map
from ts_gpusim.faults import Fault
from ts_gpusim.machine import Machine

SEEDS = range(4)
WORDS = 2048  # of the source, of the target, and of the tile in shared memory
ROWS, COLUMNS = 64, 32  # of the source as a tensor map has it
BOX_ROWS = 8  # of its box: 1024 bytes
PAGES = 4  # of the source, in the page table

_HEAD = """.version 8.8
.target {arch}
.address_size 64
.visible .entry kernel(.param .u64 source, .param .u64 target, .param .u64 table,
                       .param .align 64 .b8 map[128])
{{
    .shared .align 1024 .b8 tile[8192];
    .shared .align 8 .b64 full;
    .shared .align 8 .b64 empty;
    .shared .align 8 .b64 done;
    .shared .align 4 .b32 slot;
    .reg .pred %p, %q, %leader, %first, %second, %even, %odd, %lower, %accumulates;
    .reg .b16 %mask;
    .reg .b32 %tid, %warp, %lane, %rank, %tile, %at, %full, %empty, %done, %slot, %zero;
    .reg .b32 %v, %w, %x, %y, %peer, %far, %tmem, %own, %idesc, %r<32>;
    .reg .b64 %source, %target, %table, %map, %from, %to, %a, %b;
    ld.param.u64 %source, [source];
    ld.param.u64 %target, [target];
    ld.param.u64 %table, [table];
    mov.b64 %map, map;
    cvta.param.u64 %map, %map;
    mov.u32 %tid, %tid.x;
    mov.u32 %rank, %cluster_ctarank;
    mov.u32 %zero, 0;
    shr.u32 %warp, %tid, 5;
    and.b32 %lane, %tid, 31;
    mov.u32 %tile, tile;
    mov.u32 %full, full;
    mov.u32 %empty, empty;
    mov.u32 %done, done;
    mov.u32 %slot, slot;
    shl.b32 %at, %tid, 2;
    cvt.u64.u32 %to, %at;
    add.u64 %from, %source, %to;
    add.u64 %to, %target, %to;
    add.u32 %at, %at, %tile;
    setp.eq.u32 %leader, %tid, 0;
    setp.eq.u32 %first, %warp, 0;
    setp.eq.u32 %second, %warp, 1;
    setp.lt.u32 %lower, %lane, 16;
    setp.eq.u32 %even, %rank, 0;
    setp.ne.u32 %odd, %rank, 0;
    setp.ne.u32 %accumulates, %zero, 0;
"""
_TAIL = """
    ret;
}
"""

# Pieces that several kernels have.

SEE_INIT = """
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
"""
# full: one thread announces a copy; empty: the threads of a warp release; done: MMAs are complete.
INIT = f"""
    @%leader mbarrier.init.shared.b64 [%full], 1;
    @%leader mbarrier.init.shared.b64 [%empty], 32;
    @%leader mbarrier.init.shared.b64 [%done], 1;
{SEE_INIT}
"""
CLUSTER_SYNC = """
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
"""


def load(size: int = 8192, announced: int | None = None) -> str:
    """The leader brings the source's first bytes to the tile."""
    return f"""
    @%leader mbarrier.arrive.expect_tx.shared.b64 _, [%full], {announced or size};
    @%leader cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
        [%tile], [%source], {size}, [%full];
"""


def wait(barrier: str, parity: int, label: str) -> str:
    """All threads wait."""
    return f"""
{label}:
    mbarrier.try_wait.parity.shared.b64 %p, [{barrier}], {parity};
    @!%p bra {label};
"""


def between(one: str, other: str) -> str:
    """The words of a race of two instructions, whichever came first in a run."""
    return f"{one}.*{other}|{other}.*{one}"


@dataclass(frozen=True)
class Planted:
    """`kind`, `words`: patterns of what is found in the wrong kernel, whatever the seed."""

    body: str
    right: str
    wrong: str
    kind: str
    words: str
    threads: int = 128
    ctas: int = 1  # all one cluster
    arch: str = "sm_100a"


def found(planted: Planted, piece: str, seed: int) -> list[tuple[str, str]]:
    """Kind and sentence of all that is found in one run."""
    source = np.arange(WORDS, dtype=np.uint32).reshape(ROWS, COLUMNS)
    target = np.zeros(WORDS, np.uint32)
    table = np.arange(PAGES, dtype=np.uint32)
    map_ = tensor_map(source, "u32", (BOX_ROWS, COLUMNS), 128)
    # The body has braces of its own.
    ptx = _HEAD.format(arch=planted.arch) + planted.body.replace("{piece}", piece) + _TAIL
    machine = Machine(seed, collect=True)
    shape = (planted.ctas, 1, 1)
    try:
        with ts_gpusim.device(planted.arch, execute=machine):
            ts_gpusim.launch_ptx(
                ptx,
                "kernel",
                shape,
                (planted.threads, 1, 1),
                [source, target, table, map_],
                cluster=shape,
            )
    except Fault as fault:
        return [(fault.kind, str(fault))]
    return [(finding.kind, finding.sentence) for finding in machine.findings]


def assert_nothing_is_found(planted: Planted) -> None:
    for seed in SEEDS:
        all_found = found(planted, planted.right, seed)
        assert all_found == [], f"seed {seed}: {all_found}"


def assert_bug_is_found(planted: Planted) -> None:
    for seed in SEEDS:
        all_found = found(planted, planted.wrong, seed)
        assert any(
            re.fullmatch(planted.kind, kind) and re.search(planted.words, sentence)
            for kind, sentence in all_found
        ), f"seed {seed}: {all_found}"
