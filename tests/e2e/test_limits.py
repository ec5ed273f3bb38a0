# SPDX-License-Identifier: MIT
"""A bounded queue and a bound on a request's time: the real engine behind the real frontend."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai_client import NO_END, connect, connect_async
from tiny_kimi import PAGE_SIZE, RECIPE, WORKER_FLAGS
from worker_metrics import ended, eventually, metric

from dynamo_tokenspeed.launch.deployment import Deployment

PROMPT = "import asyncio\n\n\nclass Server:\n"
NEW_TOKENS = 600


@pytest.fixture(scope="module")
def one_slot() -> Iterator[Deployment]:
    """A worker that runs one request, lets one wait, and refuses more."""
    flags = ("--max-num-seqs", "1", "--max-queued-requests", "1")
    with Deployment.from_recipe(RECIPE, workers=1, worker_flags=(*WORKER_FLAGS, *flags)) as running:
        yield running
        running.check()


async def test_beyond_the_queue_a_request_is_refused_and_those_within_it_are_served(
    one_slot: Deployment,
) -> None:
    (worker,) = one_slot.workers
    request = {"model": one_slot.model, "prompt": PROMPT, "max_tokens": NEW_TOKENS}

    async with connect_async(one_slot) as client:
        running = await client.completions.create(**request, stream=True, extra_body=NO_END)
        chunks = [await anext(running)]
        waiting = asyncio.create_task(client.completions.create(**request, extra_body=NO_END))
        assert await asyncio.to_thread(eventually, lambda: metric(worker, "requests_waiting") == 1)
        with pytest.raises(openai.InternalServerError) as refused:
            await client.completions.create(**request)
        chunks += [chunk async for chunk in running]
        answer = await waiting

    assert refused.value.status_code == 503
    assert chunks[-1].choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == NEW_TOKENS
    assert (ended(worker, "queue_full"), ended(worker, "length")) == (1, 2)
    assert metric(worker, "request_queue_time_seconds_count") == 2
    assert metric(worker, "request_queue_time_seconds_sum") > 0


async def test_a_burst_fills_slots_and_queue_and_the_rest_is_refused(one_slot: Deployment) -> None:
    (worker,) = one_slot.workers
    refused, served = ended(worker, "queue_full"), ended(worker, "length")
    request = {"model": one_slot.model, "prompt": PROMPT, "max_tokens": NEW_TOKENS}

    async with connect_async(one_slot) as client:
        burst = (client.completions.create(**request, extra_body=NO_END) for _ in range(5))
        answers = await asyncio.gather(*burst, return_exceptions=True)

    errors = [answer for answer in answers if isinstance(answer, openai.APIStatusError)]
    assert [error.status_code for error in errors] == [503] * 3
    assert (ended(worker, "queue_full") - refused, ended(worker, "length") - served) == (3, 2)
    assert metric(worker, "kv_pages_used") == 0


def test_a_request_that_lasts_too_long_ends_and_its_pages_are_free() -> None:
    flags = (*WORKER_FLAGS, "--attention-backend", "reference", "--request-timeout", "1")
    with Deployment.from_recipe(RECIPE, workers=1, worker_flags=flags) as deployment:
        (worker,) = deployment.workers
        client = connect(deployment)
        request = {"model": deployment.model, "prompt": PROMPT, "extra_body": NO_END}

        with pytest.raises(openai.BadRequestError, match=r"longer than 1 s \(--request-timeout\)"):
            client.completions.create(**request, max_tokens=1900)

        assert ended(worker, "timeout") == 1
        assert eventually(lambda: metric(worker, "kv_pages_used") == 0)
        assert metric(worker, "kv_pages_cached") > len(PROMPT) // 8 // PAGE_SIZE
        answer = client.completions.create(**request, max_tokens=4)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 4
