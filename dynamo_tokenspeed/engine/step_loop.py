# SPDX-License-Identifier: MIT
"""The step loop: take messages, plan, run, commit, report. One step at a time."""

from __future__ import annotations

import time
from typing import Protocol

import ts_scheduler

from dynamo_tokenspeed.engine.executor import Executor, StepResult
from dynamo_tokenspeed.engine.kv_events import KVEventPublisher


class Requests(Protocol):
    """Where requests and aborts come from."""

    def apply(self, scheduler: ts_scheduler.Scheduler, wait: bool) -> bool: ...


class Reports(Protocol):
    """Where outputs go."""

    def send_step(
        self, output: ts_scheduler.Output, result: StepResult, scheduler: ts_scheduler.Scheduler
    ) -> None: ...

    def send_stats(self, scheduler: ts_scheduler.Scheduler) -> None: ...


def run(
    scheduler: ts_scheduler.Scheduler,
    executor: Executor,
    inbox: Requests,
    outbox: Reports,
    kv_events: KVEventPublisher | None,
) -> None:
    """Serve until the inbox ends.

    A step lasts from the reading of the tokens before it to the reading of its own: what a user
    waits for a token, host time included.
    """
    idle = True
    begun = 0.0
    while inbox.apply(scheduler, wait=idle):
        if idle:
            begun = time.perf_counter()
        plan = scheduler.plan()
        idle = plan is None
        if plan is None:
            outbox.send_stats(scheduler)
        else:
            result = executor.launch(plan)
            ended = time.perf_counter()
            output = scheduler.commit(plan.step, result.token_ids, seconds=ended - begun)
            begun = ended
            executor.constraints.forget_finished(output)
            outbox.send_step(output, result, scheduler)
        if kv_events is not None:
            kv_events.publish(scheduler)
