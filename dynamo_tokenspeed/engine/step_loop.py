# SPDX-License-Identifier: MIT
"""The step loop: take messages, plan, launch, commit, report."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

import ts_scheduler

from dynamo_tokenspeed.engine.executor import Executor
from dynamo_tokenspeed.engine.kv_events import KVEventPublisher
from dynamo_tokenspeed.engine.launched_step import LaunchedStep, StepResult
from dynamo_tokenspeed.protocol import Heartbeat


class Requests(Protocol):
    """Where requests and aborts come from."""

    def apply(self, scheduler: ts_scheduler.Scheduler, wait: bool) -> bool: ...


class Reports(Protocol):
    """Where outputs go."""

    def send_admitted(self, plan: ts_scheduler.Plan) -> None: ...

    def send_step(
        self, output: ts_scheduler.Output, result: StepResult, scheduler: ts_scheduler.Scheduler
    ) -> None: ...

    def send_failed(self, request_id: int, sentence: str) -> None: ...

    def send_stats(self, scheduler: ts_scheduler.Scheduler) -> None: ...


def run(
    scheduler: ts_scheduler.Scheduler,
    executor: Executor,
    inbox: Requests,
    outbox: Reports,
    kv_events: KVEventPublisher | None,
    heartbeat: Heartbeat | None = None,
) -> None:
    """Serve until the inbox ends.

    With overlap a step is planned and launched before the tokens of the one before it are read;
    without, a step is read in the turn that launched it.

    Transfers beside the steps end when they end; the inbox's wait must end with one of them, too.

    A step lasts from the reading of the tokens before it to the reading of its own: what a user
    waits for a token, host time included.
    """
    if heartbeat is None:  # nobody watches
        heartbeat = Heartbeat(scheduler.config.max_num_seqs)
    overlap_depth = scheduler.config.overlap_depth
    in_flight: deque[LaunchedStep] = deque()
    idle, begun = True, 0.0
    while inbox.apply(scheduler, wait=idle):
        if idle:
            begun = time.perf_counter()
        if executor.transfers is not None:
            for transfer_id, ok in executor.transfers.ended():
                scheduler.complete_transfer(transfer_id, ok)
        plan = scheduler.plan()
        if plan is not None:
            heartbeat.launches(plan)
            outbox.send_admitted(plan)
            in_flight.append(executor.launch(plan))
        idle = not in_flight
        if idle:
            outbox.send_stats(scheduler)
        elif plan is None or len(in_flight) > overlap_depth:
            step = in_flight.popleft()
            heartbeat.reads(step.number)
            result = step.result()
            heartbeat.has_read()
            ended = time.perf_counter()
            for request_id, sentence in result.failed.items():
                if scheduler.abort(request_id):
                    executor.constraints.forget(request_id)
                    outbox.send_failed(request_id, sentence)
            output = scheduler.commit(step.number, result.token_ids, seconds=ended - begun)
            begun = ended
            executor.constraints.forget_finished(output)
            outbox.send_step(output, result, scheduler)
        if kv_events is not None:
            kv_events.publish(scheduler)
