# SPDX-License-Identifier: MIT
"""What the software GPU says about registers and tensor memory that are used too early."""

from __future__ import annotations

import pytest
import torch
import ts_gpusim
from ts_gpusim.faults import Finding
from ts_gpusim.machine import Machine

THREADS = 128
HEAD = """.version 9.0
.target {arch}
.address_size 64
.visible .entry kernel(.param .u64 result)
{{
    .shared .align 1024 .b8 matrix[32768];
    .shared .align 8 .b64 done;
    .shared .align 4 .b32 columns;
    .reg .pred %p, %odd, %leader, %first, %yes, %no;
    .reg .b32 %tid, %warp, %at, %v, %w, %x, %t, %done, %shape, %d<8>, %a<4>;
    .reg .b64 %out, %wide, %ma, %mb;
    ld.param.u64 %out, [result];
    mov.u32 %tid, %tid.x;
    mul.wide.u32 %wide, %tid, 4;
    add.u64 %out, %out, %wide;
    shr.u32 %warp, %tid, 5;
    and.b32 %w, %tid, 1;
    setp.eq.u32 %odd, %w, 1;
    setp.eq.u32 %leader, %tid, 0;
    setp.eq.u32 %first, %warp, 0;
    setp.eq.u32 %yes, 0, 0;
    setp.eq.u32 %no, 0, 1;
"""
TAIL = """
    ret;
}
"""


def findings(body: str, arch: str) -> list[Finding]:
    machine = Machine(seed=1, collect=True)
    with ts_gpusim.device(arch, execute=machine):
        ts_gpusim.launch_ptx(
            HEAD.format(arch=arch) + body + TAIL,
            "kernel",
            (1, 1, 1),
            (THREADS, 1, 1),
            [torch.zeros(THREADS, dtype=torch.int32)],
        )
    return machine.findings


def kinds(body: str, arch: str) -> set[str]:
    return {finding.kind for finding in findings(body, arch)}


# Registers that nothing has written


def test_a_register_that_nothing_has_written_is_named_with_its_lanes():
    (found,) = findings("add.u32 %w, %v, 1;\nst.global.u32 [%out], %w;", "sm_90a")
    assert found.kind == "uninitialised"
    assert "register %v is read, and nothing has written it in lanes 0xffffffff" in found.sentence
    assert "`add.u32 %w, %v, 1;`" in found.sentence
    assert found.times == THREADS // 32


def test_only_the_lanes_that_have_not_written_a_register_are_named():
    (found,) = findings("@%odd mov.u32 %v, 3;\nst.global.u32 [%out], %v;", "sm_90a")
    assert "in lanes 0x55555555" in found.sentence


def test_a_register_that_every_way_writes_is_clean():
    body = """
    @%odd bra other;
    mov.u32 %v, 3;
    bra both;
other:
    mov.u32 %v, 4;
both:
    st.global.u32 [%out], %v;
"""
    assert not findings(body, "sm_90a")


def test_a_register_that_the_same_lanes_write_and_read_is_clean():
    assert not findings("@%odd mov.u32 %v, 3;\n@%odd st.global.u32 [%out], %v;", "sm_90a")


def test_a_mov_of_what_nothing_has_written_is_no_use_of_it_but_what_it_copies_is():
    assert not findings("mov.u32 %w, %v;", "sm_90a")
    (found,) = findings("mov.u32 %w, %v;\nst.global.u32 [%out], %w;", "sm_90a")
    assert "register %w" in found.sentence


def test_a_loop_that_reads_what_its_last_round_has_written_is_found_in_its_first():
    body = """
    mov.u32 %t, 0;
again:
    add.u32 %w, %v, %t;
    mov.u32 %v, %w;
    add.u32 %t, %t, 1;
    setp.lt.u32 %p, %t, 4;
    @%p bra again;
    st.global.u32 [%out], %w;
"""
    # What was unwritten at first is counted with it.
    (found,) = findings(body, "sm_90a")
    assert "register %v" in found.sentence
    assert found.times == THREADS // 32


# wgmma

MATRICES = """
    mov.u32 %at, matrix;
    shl.b32 %t, %tid, 4;
    add.u32 %t, %t, %at;
    st.shared.v4.b32 [%t], {%tid, %tid, %tid, %tid};
    st.shared.v4.b32 [%t+2048], {%tid, %tid, %tid, %tid};
    st.shared.v4.b32 [%t+4096], {%tid, %tid, %tid, %tid};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    mov.b64 %ma, 0x0000000800080040;
    mov.b64 %mb, 0x0000000800080140;
"""  # without swizzle; 64 x 16 and 8 x 16 elements
D = "{%d0, %d1, %d2, %d3}"
ZERO_D = "".join(f"mov.b32 %d{i}, 0;\n" for i in range(4))
ZERO_A = "".join(f"mov.b32 %a{i}, 0;\n" for i in range(4))
FENCE = "wgmma.fence.sync.aligned;\n"
COMMIT = "wgmma.commit_group.sync.aligned;\n"
WAIT = "wgmma.wait_group.sync.aligned 0;\n"
USE = "st.global.u32 [%out], %d0;\n"


def wgmma(d: str = D, a: str = "%ma", scale_d: str = "%yes") -> str:
    flags = "1, 1, 0" if a.startswith("{") else "1, 1, 0, 0"
    operands = f"{d}, {a}, %mb, {scale_d}, {flags}"
    return f"wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {operands};\n"


def on_hopper(body: str) -> set[str]:
    return kinds(MATRICES + body, "sm_90a")


def test_a_wgmma_that_is_fenced_committed_and_waited_for_is_clean():
    assert on_hopper(ZERO_D + FENCE + wgmma() + wgmma() + COMMIT + WAIT + USE) == set()


def test_reading_d_before_wait_group_is_found():
    (found,) = findings(MATRICES + ZERO_D + FENCE + wgmma() + COMMIT + USE + WAIT, "sm_90a")
    assert found.kind == "unfinished"
    assert "no wgmma.wait_group has waited for" in found.sentence
    assert "which accumulates into it" in found.sentence


def test_waiting_for_older_groups_only_leaves_the_newest_unfinished():
    other = "{%d4, %d5, %d6, %d7}"
    zero = "".join(f"mov.b32 %d{i}, 0;\n" for i in range(4, 8))
    two = ZERO_D + zero + FENCE + wgmma() + COMMIT + wgmma(d=other) + COMMIT
    wait = "wgmma.wait_group.sync.aligned 1;\n"
    assert on_hopper(two + wait + USE + WAIT) == set()
    assert on_hopper(two + wait + USE.replace("%d0", "%d4") + WAIT) == {"unfinished"}


def test_a_wgmma_that_is_not_committed_is_not_waited_for():
    assert on_hopper(ZERO_D + FENCE + wgmma() + WAIT + USE) == {"unfinished"}


def test_overwriting_a_in_registers_before_wait_group_is_found():
    fragment = "{%a0, %a1, %a2, %a3}"
    begin = ZERO_D + ZERO_A + FENCE + wgmma(a=fragment) + COMMIT
    assert on_hopper(begin + WAIT + "mov.b32 %a0, 1;\n" + USE) == set()
    assert on_hopper(begin + "mov.b32 %a0, 1;\n" + WAIT + USE) == {"unfinished"}


def test_registers_written_after_the_fence_are_found():
    assert on_hopper(FENCE + ZERO_D + wgmma() + COMMIT + WAIT + USE) == {"wgmma-fence"}


def test_a_wgmma_without_any_fence_is_found():
    assert "wgmma-fence" in on_hopper(wgmma(scale_d="%no") + COMMIT + WAIT + USE)


def test_accumulating_into_what_nothing_has_written_is_found_but_overwriting_it_is_clean():
    assert on_hopper(FENCE + wgmma() + COMMIT + WAIT + USE) == {"uninitialised"}
    assert on_hopper(FENCE + wgmma(scale_d="%no") + COMMIT + WAIT + USE) == set()


def test_overwriting_a_matrix_before_wait_group_is_a_race():
    store = "st.shared.b32 [%t], %tid;\n"
    begin = ZERO_D + FENCE + wgmma() + COMMIT
    assert on_hopper(begin + WAIT + "bar.sync 0;\n" + store) == set()
    assert on_hopper(begin + "bar.sync 0;\n" + store + WAIT) == {"race"}


def test_a_wgmma_meets_generic_writes_without_a_proxy_fence():
    unfenced = MATRICES.replace("fence.proxy.async.shared::cta;", "")
    body = unfenced + ZERO_D + FENCE + wgmma() + COMMIT + WAIT + USE
    assert kinds(body, "sm_90a") == {"race"}


def test_one_warp_may_release_what_its_whole_warpgroup_has_multiplied():
    """The others have executed the same wgmma by then, and its reads are over for all of them."""
    body = f"""{ZERO_D}{FENCE}{wgmma()}{COMMIT}{WAIT}
    mov.u32 %done, done;
    @%leader mbarrier.init.shared.b64 [%done], 1;
    bar.sync 0;
"""
    release = """
    @%leader mbarrier.arrive.shared.b64 _, [%done];
    setp.eq.u32 %p, %warp, 1;
    @!%p bra end;
wait:
    mbarrier.try_wait.parity.shared.b64 %p, [%done], 0;
    @!%p bra wait;
    st.shared.v4.b32 [%at], {%warp, %warp, %warp, %warp};
end:
"""
    order = body.index("mov.u32 %done")
    early = body[order:] + body[:order]  # the barrier is initialised first
    assert "race" not in on_hopper(early + release)


# Tensor memory

ALLOCATE = """
    mov.u32 %at, columns;
    @%first tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%at], 32;
    bar.sync 0;
    ld.shared.u32 %at, [%at];
    shl.b32 %t, %warp, 21;
    add.u32 %t, %t, %at;
"""
FREE = """
    bar.sync 0;
    @%first tcgen05.dealloc.cta_group::1.sync.aligned.b32 %at, 32;
"""
LOAD = "tcgen05.ld.sync.aligned.32x32b.x2.b32 {%d0, %d1}, [%t];\n"
STORE = "tcgen05.st.sync.aligned.32x32b.x2.b32 [%t], {%tid, %warp};\n"
WAIT_LD = "tcgen05.wait::ld.sync.aligned;\n"
WAIT_ST = "tcgen05.wait::st.sync.aligned;\n"


def on_blackwell(body: str) -> set[str]:
    return kinds(ALLOCATE + body + FREE, "sm_100a")


def test_tensor_memory_that_is_stored_waited_for_and_loaded_is_clean():
    assert on_blackwell(STORE + WAIT_ST + LOAD + WAIT_LD + USE) == set()


def test_using_a_register_before_wait_ld_is_found():
    body = ALLOCATE + STORE + WAIT_ST + LOAD + USE + WAIT_LD + FREE
    (found,) = findings(body, "sm_100a")
    assert found.kind == "unfinished"
    assert "register %d0 is read, but no tcgen05.wait::ld has waited for" in found.sentence


def test_a_wait_for_stores_is_none_for_loads_and_the_other_way_round():
    # What is loaded is not waited for before its columns are freed, either.
    assert on_blackwell(STORE + WAIT_ST + LOAD + WAIT_ST + USE) == {"unfinished", "race"}
    assert on_blackwell(STORE + WAIT_LD + LOAD + WAIT_LD + USE) == {"race"}


def test_what_a_mov_copies_is_as_unfinished_as_before():
    early = "mov.b32 %v, %d0;\n"
    use = "st.global.u32 [%out], %v;\n"
    assert on_blackwell(STORE + WAIT_ST + LOAD + early + WAIT_LD + use) == set()
    assert on_blackwell(STORE + WAIT_ST + LOAD + early + use + WAIT_LD) == {"unfinished"}


@pytest.mark.parametrize("packed", ["mov.b64 %wide, {%d0, %d1};\nadd.u64 %wide, %wide, 1;\n"])
def test_what_a_mov_packs_is_as_unfinished_as_before(packed):
    assert on_blackwell(STORE + WAIT_ST + LOAD + packed + WAIT_LD) == {"unfinished"}


def test_loading_tensor_memory_that_nothing_has_written_is_found():
    (found,) = findings(ALLOCATE + LOAD + WAIT_LD + FREE, "sm_100a")
    assert found.kind == "uninitialised"
    assert "of tensor memory from 0 are read in lane" in found.sentence


def test_columns_that_are_freed_and_allocated_again_hold_nothing():
    again = ALLOCATE.replace("mov.u32 %at, columns;", "bar.sync 0;\nmov.u32 %at, columns;")
    body = STORE + WAIT_ST + FREE + again + LOAD + WAIT_LD
    assert on_blackwell(body) == {"uninitialised"}
