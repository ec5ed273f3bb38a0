# SPDX-License-Identifier: MIT
"""The step loop: take messages, plan, run, commit, report. One step at a time."""

from __future__ import annotations

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
        self, output: ts_scheduler.Output, result: StepResult, stats: ts_scheduler.Stats
    ) -> None: ...

    def send_stats(self, stats: ts_scheduler.Stats) -> None: ...


def run(
    scheduler: ts_scheduler.Scheduler,
    executor: Executor,
    inbox: Requests,
    outbox: Reports,
    kv_events: KVEventPublisher | None,
) -> None:
    """Serve until the inbox ends."""
    idle = True
    while inbox.apply(scheduler, wait=idle):
        plan = scheduler.plan()
        idle = plan is None
        if plan is None:
            outbox.send_stats(scheduler.stats())
        else:
            result = executor.launch(plan)
            output = scheduler.commit(plan.step, result.token_ids)
            executor.constraints.forget_finished(output)
            outbox.send_step(output, result, scheduler.stats())
        if kv_events is not None:
            kv_events.publish(scheduler)
