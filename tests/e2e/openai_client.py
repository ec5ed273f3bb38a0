# SPDX-License-Identifier: MIT
"""The `openai` client as tests use it: no proxy, no retries."""

from __future__ import annotations

from typing import Any

import openai

from dynamo_tokenspeed.launch.deployment import Deployment

# Dynamo's extensions of the request, which the client passes on as they are.
NO_END: dict[str, Any] = {"ignore_eos": True}
WHERE: dict[str, Any] = {"nvext": {"extra_fields": ["worker_id", "timing"]}}


def connect(deployment: Deployment) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{deployment.url}/v1",
        api_key="none",
        max_retries=0,
        timeout=60.0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )


def connect_async(deployment: Deployment) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{deployment.url}/v1",
        api_key="none",
        max_retries=0,
        timeout=60.0,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    )


def user(content: str) -> list[Any]:
    return [{"role": "user", "content": content}]
