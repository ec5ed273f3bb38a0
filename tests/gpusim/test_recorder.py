# SPDX-License-Identifier: MIT
"""What a recorded launch says about time, in the cost model's cycles."""

from __future__ import annotations

import functools
from itertools import pairwise

import gpusim_hopper_gemm
import numpy as np
import pytest
import torch
import ts_gpusim
from ts_gpusim.cost_model import BLACKWELL, HOPPER
from ts_gpusim.faults import Fault
from ts_gpusim.machine import Machine
from ts_gpusim.report.schema import ACTIVITIES, Recording, Span
from ts_gpusim.roles import group_warps

HEAD = """.version 8.6
.target sm_100a
.address_size 64
.visible .entry kernel(.param .u64 source)
{
    .shared .align 128 .b8 buffer[4096];
    .shared .align 8 .b64 full;
    .reg .pred %p, %leader, %first;
    .reg .b32 %tid, %warp, %v, %w;
    .reg .b64 %src;
    .reg .f32 %x;
    ld.param.u64 %src, [source];
    mov.u32 %tid, %tid.x;
    shr.u32 %warp, %tid, 5;
    setp.eq.u32 %leader, %tid, 0;
    setp.eq.u32 %first, %warp, 0;
"""
COPY = """
    @%leader mbarrier.init.shared.b64 [full], 1;
    bar.sync 0;
    @%leader mbarrier.arrive.expect_tx.shared.b64 _, [full], 512;
    @%leader cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
        [buffer], [%src], 512, [full];
WAIT:
    mbarrier.try_wait.parity.shared.b64 %p, [full], 0;
    @!%p bra WAIT;
"""


def record(body: str, threads: int = 64, seed: int = 0, ctas: int = 1) -> Recording:
    machine = Machine(seed, collect=True, record=True)
    with ts_gpusim.device("sm_100a", execute=machine):
        ts_gpusim.launch_ptx(
            HEAD + body + "\n    ret;\n}",
            "kernel",
            (ctas, 1, 1),
            (threads, 1, 1),
            [np.zeros(1024, np.uint32)],
        )
    recording = machine.runs[0].recording
    assert recording is not None
    return recording


@functools.cache
def gemm(seed: int = 0) -> Recording:
    machine = Machine(seed, collect=True, record=True)
    with ts_gpusim.device("sm_90a", execute=machine):
        a, b = torch.ones(128, 256).bfloat16(), torch.ones(64, 256).bfloat16()
        gpusim_hopper_gemm.compiled(False)(a, b, torch.zeros(128, 64))
    recording = machine.runs[0].recording
    assert recording is not None
    return recording


RECORDINGS = {"copy": lambda: record(COPY, threads=128, ctas=2), "gemm": gemm}


def waits(recording: Recording, warp: int = 0) -> list[Span]:
    return waits_of(recording.timelines[0].warps[warp])


def waits_of(spans: list[Span]) -> list[Span]:
    return [span for span in spans if ACTIVITIES[span.activity] == "wait"]


@pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS)
def test_a_warps_spans_follow_each_other_without_gap_or_overlap(recording):
    for timeline in recording().timelines:
        for spans in timeline.warps:
            assert spans[0].begin == timeline.begin
            assert all(a.end == b.begin for a, b in pairwise(spans))


@pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS)
def test_an_engine_does_one_thing_at_a_time(recording):
    for timeline in recording().timelines:
        for engine in timeline.engines:
            done = sorted(engine.operations, key=lambda operation: operation.begin)
            assert all(a.free <= b.begin for a, b in pairwise(done))
            assert all(o.issued <= o.begin <= o.free <= o.end for o in done)


@pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS)
def test_busy_and_waiting_of_roles_are_all_that_warps_spans_say(recording):
    found = recording()
    spans = [span for cta in found.timelines for warp in cta.warps for span in warp]
    waited = sum(span.waited for span in spans)
    assert waited == sum(role.waiting for role in found.roles)
    assert waited == sum(wait.cycles for wait in found.waits)
    busy = sum(span.end - span.begin for span in spans) - waited
    assert busy == sum(sum(role.busy.values()) for role in found.roles)


@pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS)
def test_executed_instructions_are_those_of_the_roles(recording):
    found = recording()
    for number, role in enumerate(found.roles):
        assert role.instructions == sum(i.executed[number] for i in found.instructions)


def test_a_wait_for_a_copy_ends_when_the_copy_is_complete():
    recording = record(COPY)
    (copy,) = recording.timelines[0].engines[0].operations
    (wait,) = (span for span in waits(recording) if span.barrier.startswith("mbarrier"))
    assert wait.end == copy.end == copy.issued + 512 // BLACKWELL.copy_bytes + 600
    assert recording.instructions[wait.ended_by].text.startswith("@%leader cp.async.bulk")


def test_a_barrier_lets_all_go_on_when_the_last_has_come():
    slow = "@!%first bra JOIN;" + "ex2.approx.f32 %x, %x;" * 10 + "JOIN: bar.sync 0;"
    recording = record("mov.f32 %x, 0f00000000;" + slow).timelines[0]
    (wait,) = waits_of(recording.warps[1])
    assert waits_of(recording.warps[0]) == []  # it came last
    arrival = next(s for s in recording.warps[0] if ACTIVITIES[s.activity] == "synchronise")
    assert wait.end == arrival.begin


def test_a_loaded_register_is_waited_for_where_it_is_read():
    recording = record("ld.global.u32 %v, [%src]; add.u32 %w, %tid, 1; add.u32 %w, %v, 1;", 32)
    (wait,) = waits(recording)
    assert recording.instructions[wait.instruction].text == "add.u32 %w, %v, 1;"
    assert recording.instructions[wait.ended_by].text == "ld.global.u32 %v, [%src];"
    loaded = 128 // BLACKWELL.global_bytes + BLACKWELL.global_latency
    assert wait.waited == loaded - 2  # the load and the other addition took a cycle each


def test_an_mma_keeps_the_tensor_cores_busy_for_its_flop():
    operations = gemm().timelines[0].engines[1].operations
    busy = sum(operation.free - operation.begin for operation in operations)
    per_cycle = HOPPER.mma_results * 2 * 16  # bf16
    assert busy == 2 * 64 * 64 * 256 // per_cycle
    assert sum(operation.amount for operation in operations) == 2 * 64 * 64 * 256


def test_the_model_says_the_same_for_every_seed():
    assert record(COPY, 128, seed=1) == record(COPY, 128, seed=2)


def test_a_fault_keeps_what_was_recorded_until_then():
    machine = Machine(collect=True, record=True)
    body = HEAD + "bar.sync 0; @%first bar.sync 1, 64; ret; }"
    with ts_gpusim.device("sm_100a", execute=machine), pytest.raises(Fault) as raised:
        ts_gpusim.launch_ptx(body, "kernel", (1, 1, 1), (64, 1, 1), [np.zeros(4, np.uint32)])
    assert raised.value.kind == "deadlock"
    assert raised.value.recording is not None
    assert raised.value.recording.roles[0].instructions > 0


def test_without_recording_there_is_none():
    machine = Machine()
    with ts_gpusim.device("sm_100a", execute=machine):
        ptx = HEAD + "ret; }"
        ts_gpusim.launch_ptx(ptx, "kernel", (1, 1, 1), (32, 1, 1), [np.zeros(4, np.uint32)])
    assert machine.runs[0].recording is None


def test_only_the_ctas_that_are_asked_for_have_a_timeline():
    machine = Machine(record=True, ctas=[2, 5])
    with ts_gpusim.device("sm_100a", execute=machine):
        ptx = HEAD + "ret; }"
        ts_gpusim.launch_ptx(ptx, "kernel", (3, 2, 1), (32, 1, 1), [np.zeros(4, np.uint32)])
    recording = machine.runs[0].recording
    assert [timeline.index for timeline in recording.timelines] == [(2, 0, 0), (2, 1, 0)]
    assert recording.ctas == 6


def test_short_spans_are_merged_when_there_are_too_many_and_a_sentence_says_so():
    loop = """
    mov.u32 %v, 0;
LOOP:
    st.shared.u32 [buffer], %v;
    add.u32 %v, %v, 1;
    setp.lt.u32 %p, %v, 20000;
    @%p bra LOOP;
"""
    (timeline,) = record(loop, threads=32).timelines
    assert sum(map(len, timeline.warps)) <= 6000
    assert "short ones are merged with their neighbours" in timeline.shortened
    assert sum(span.pieces for span in timeline.warps[0]) > 20000


def test_warps_that_execute_alike_are_one_role():
    loads, computes = [9, 100, 0], [9, 0, 200]
    assert group_warps([computes, [12, 0, 200], loads, computes]) == [[0, 1, 3], [2]]
