# SPDX-License-Identifier: MIT
"""What a client is told by a worker with a bounded queue, or with a bound on a request's time."""

from __future__ import annotations

import re
from typing import Any

from chat import Ending, ask, streaming, whole
from dynamo_environments import NEWEST, DynamoEnvironment

from dynamo_tokenspeed.launch.deployment import Deployment

SLOW = {"step_seconds": 0.02}
ONE_AT_A_TIME = ("--max-num-seqs", "1", "--max-queued-requests", "0")
MIGRATING = ("--migration-limit", "3")


def ended(deployment: Deployment, reason: str) -> float:
    """Requests that ended so at the first worker."""
    metrics = deployment.workers[0].metrics()
    counter = r"^tokenspeed_requests_finished_total\{[^}]*finished_reason=\"%s\"[^}]*\} (\S+)$"
    (value,) = re.findall(counter % reason, metrics, re.MULTILINE)
    return float(value)


async def test_one_request_too_many_is_a_503_at_once_and_disturbs_nobody(start: Any) -> None:
    with start(SLOW, *ONE_AT_A_TIME, frontend_flags=MIGRATING) as deployment:
        async with streaming(deployment, max_tokens=100) as events:
            running = Ending()
            running.add(await anext(events))
            status, answer = await ask(deployment)
            refused = await whole(deployment)
            async for event in events:
                running.add(event)
        again, _ = await ask(deployment)

        assert (status, answer["code"]) == (503, 503)
        assert refused.error is not None
        assert running.usage is not None
        assert running.usage["completion_tokens"] == 100
        assert again == 200  # the worker is still in routing
        assert ended(deployment, "queue_full") == 2  # each was asked once: none was migrated
        assert ended(deployment, "length") == 2


async def test_a_request_that_lasts_too_long_ends_with_a_sentence(
    start: Any, dynamo: DynamoEnvironment
) -> None:
    flags = ("--request-timeout", "0.5")
    with start(SLOW, *flags, frontend_flags=MIGRATING) as deployment:
        status, answer = await ask(deployment, max_tokens=2000)
        streamed = await whole(deployment, max_tokens=2000)
        again, _ = await ask(deployment)

        if dynamo.version == NEWEST:
            assert status == 400
            assert "longer than 0.5 s (--request-timeout)" in answer["message"]
            assert "--request-timeout" in str(streamed.error)
        else:
            assert status == 500
        assert streamed.error is not None
        assert again == 200
        assert ended(deployment, "timeout") == 2


async def test_a_request_without_a_token_in_time_is_a_503(start: Any) -> None:
    flags = ("--request-timeout", "0.3")
    with start({"hang_after": 1}, *flags, frontend_flags=MIGRATING) as deployment:
        status, _ = await ask(deployment)

        assert status == 503
        assert ended(deployment, "timeout") == 1  # none was migrated
