# SPDX-License-Identifier: MIT
"""A request that cannot be served gets a 4xx with a sentence, and harms nobody."""

from __future__ import annotations

import asyncio

import openai
import pytest
from bad_requests import BAD_CHATS, BAD_REQUESTS, BadRequest, Endpoint, post
from openai_client import NO_END, connect_async
from worker_metrics import total

from dynamo_tokenspeed.launch.deployment import Deployment

EVERY = [(bad, endpoint) for bad in BAD_REQUESTS for endpoint in bad.endpoints]
STORY = "class Parser:\n    def __init__(self):\n"


def is_refused(deployment: Deployment, bad: BadRequest, endpoint: Endpoint) -> None:
    status, message = post(deployment.url, endpoint, bad.body(endpoint, deployment.model))

    assert 400 <= status < 500, (status, message)
    assert bad.word in message
    assert len(message.split()) > 1
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("bad", "endpoint"), EVERY, ids=[f"{bad.name}, {endpoint}" for bad, endpoint in EVERY]
)
def test_refused_with_a_sentence(
    deployment: Deployment, bad: BadRequest, endpoint: Endpoint
) -> None:
    is_refused(deployment, bad, endpoint)


@pytest.mark.parametrize("bad", BAD_CHATS, ids=[bad.name for bad in BAD_CHATS])
def test_refused_with_a_sentence_on_the_oldest_dynamo(
    oldest_dynamo: Deployment, bad: BadRequest
) -> None:
    is_refused(oldest_dynamo, bad, "chat/completions")


async def test_other_streams_are_undisturbed(
    deployment: Deployment, client: openai.OpenAI, model: str
) -> None:
    request = {"model": model, "prompt": STORY, "max_tokens": 600, "temperature": 0}
    alone = client.completions.create(**request, extra_body=NO_END).choices[0].text

    async with connect_async(deployment) as other:
        stream = await other.completions.create(**request, stream=True, extra_body=NO_END)
        texts = [(await anext(stream)).choices[0].text]
        for bad, endpoint in EVERY:
            if "10 MB" not in bad.name:  # the frontend's own seconds
                body = bad.body(endpoint, model)
                await asyncio.to_thread(post, deployment.url, endpoint, body)
        assert total(deployment.workers, "requests_running") == 1
        texts += [chunk.choices[0].text async for chunk in stream if chunk.choices]

    assert "".join(texts) == alone
    assert total(deployment.workers, "kv_pages_used") == 0
