# SPDX-License-Identifier: MIT
"""The engine's signs of life, as another process reads them."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import ts_kernels
import ts_scheduler

from dynamo_tokenspeed.protocol import Heartbeat
from dynamo_tokenspeed.protocol.heartbeat import StepInFlight

MAX_NUM_SEQS = 5


@pytest.fixture
def sides() -> tuple[Heartbeat, Heartbeat]:
    """The engine's and the worker's, on the same memory."""
    fd = Heartbeat.shared_memory(MAX_NUM_SEQS)
    both = Heartbeat(MAX_NUM_SEQS, fd), Heartbeat(MAX_NUM_SEQS, fd)
    os.close(fd)
    return both


def plan(step: int, slots: list[int], admitted: dict[int, int] | None = None) -> Any:
    """A step of one token a row; `admitted`: request ids by slot."""
    admitted = admitted or {}
    return SimpleNamespace(
        step=step,
        num_rows=len(slots),
        num_absorbed_rows=len(slots),
        num_tokens=len(slots),
        row_slot=np.array(slots, np.int32),
        admitted_slot=np.array(list(admitted), np.int32),
        admitted_request=np.array(list(admitted.values()), np.uint64),
    )


def test_a_plan_of_the_scheduler_is_recorded(sides: tuple[Heartbeat, Heartbeat]) -> None:
    engine, worker = sides
    scheduler = ts_scheduler.Scheduler(ts_scheduler.SchedulerConfig(max_num_seqs=MAX_NUM_SEQS))
    scheduler.submit(77, np.arange(5, dtype=np.int32), max_tokens=2)
    planned = scheduler.plan()
    assert planned is not None

    engine.launches(planned)

    step = worker.step()
    assert step is not None
    assert (step.number, step.rows, step.tokens, step.request_ids) == (1, 1, 5, [77])


def test_whatever_the_engine_does_is_a_sign(sides: tuple[Heartbeat, Heartbeat]) -> None:
    engine, worker = sides

    def launches() -> None:
        engine.launches(plan(1, [0]))

    for deed in (engine.works, engine.received, launches, engine.has_read, lambda: engine.reads(1)):
        before = worker.sign()
        assert worker.sign() == before
        deed()
        assert worker.sign() != before, deed


def test_a_step_that_came_and_went_was_a_sign(sides: tuple[Heartbeat, Heartbeat]) -> None:
    engine, worker = sides
    before = worker.sign()
    for step in range(1, 6):
        engine.launches(plan(step, [0]))
        engine.has_read()
        assert worker.sign() != before
        before = worker.sign()


def test_an_engine_that_waits_for_messages_is_not_busy(
    sides: tuple[Heartbeat, Heartbeat],
) -> None:
    engine, worker = sides
    engine.works()
    assert worker.sign().busy
    engine.waits()
    assert not worker.sign().busy


def test_a_step_names_the_requests_of_its_rows(sides: tuple[Heartbeat, Heartbeat]) -> None:
    engine, worker = sides
    assert worker.step() is None
    engine.launches(plan(1, [3, 1], {3: 2**63, 1: 20}))
    assert worker.step() == StepInFlight(1, 2, 2, 2, [2**63, 20])
    engine.reads(1)
    engine.has_read()
    assert worker.step() is None


def test_the_step_that_is_waited_for_is_the_one_named(sides: tuple[Heartbeat, Heartbeat]) -> None:
    engine, worker = sides
    engine.launches(plan(1, [0], {0: 10}))
    engine.launches(plan(2, [0, 4], {4: 40}))
    engine.reads(1)
    step = worker.step()
    assert step is not None
    assert (step.number, step.request_ids) == (1, [10])
    engine.has_read()
    engine.reads(2)
    step = worker.step()
    assert step is not None
    assert (step.number, step.request_ids) == (2, [10, 40])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_native_kernel_gives_signs_while_it_computes(
    sides: tuple[Heartbeat, Heartbeat], threads: int
) -> None:
    if "native" in ts_kernels.default_registry().unavailable:
        pytest.skip(ts_kernels.default_registry().unavailable["native"])
    engine, worker = sides
    torch_threads = torch.get_num_threads()
    ops = ts_kernels.bind("cpu", torch.float32)
    ts_kernels.set_num_threads(threads, ops)
    ts_kernels.count_progress_in(engine.progress)
    try:
        for _ in range(3):
            before = worker.sign()
            ops.linear(torch.ones(4, 256), torch.ones(512, 256))
            assert worker.sign().progress > before.progress
    finally:
        ts_kernels.count_progress_in(np.zeros(1, np.uint64))
        torch.set_num_threads(torch_threads)


@pytest.mark.parametrize("word", [np.zeros(2, np.uint64), np.zeros(1, np.int32)])
def test_progress_is_counted_in_one_word(word: Any) -> None:
    with pytest.raises(ValueError, match="one writable uint64"):
        ts_kernels.count_progress_in(word)
