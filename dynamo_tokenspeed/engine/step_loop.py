# SPDX-License-Identifier: MIT
"""The step loop: take messages, plan, run, commit, report. One step at a time."""

from __future__ import annotations

import ts_scheduler

from dynamo_tokenspeed.engine.executor import Executor
from dynamo_tokenspeed.engine.inbox import Inbox
from dynamo_tokenspeed.engine.kv_events import KVEventPublisher
from dynamo_tokenspeed.engine.outbox import Outbox


def run(
    scheduler: ts_scheduler.Scheduler,
    executor: Executor,
    inbox: Inbox,
    outbox: Outbox,
    kv_events: KVEventPublisher | None,
) -> None:
    """Serve until the worker says `Shutdown`."""
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
