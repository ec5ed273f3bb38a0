# SPDX-License-Identifier: MIT
"""Chats with a deployment over plain HTTP, so that a test sees exactly what is sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from dynamo_tokenspeed.launch.deployment import Deployment

_TIMEOUT = aiohttp.ClientTimeout(60)


def body(max_tokens: int = 8, **fields: Any) -> dict[str, Any]:
    return {
        "model": "stand-in",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": max_tokens,
        **fields,
    }


async def ask(deployment: Deployment, **fields: Any) -> tuple[int, Any]:
    """Status and body of the answer to a chat that is not streamed."""
    async with (
        aiohttp.ClientSession(timeout=_TIMEOUT) as session,
        session.post(f"{deployment.url}/v1/chat/completions", json=body(**fields)) as response,
    ):
        return response.status, await response.json(content_type=None)


@asynccontextmanager
async def streaming(deployment: Deployment, **fields: Any) -> AsyncIterator[AsyncIterator[Any]]:
    """The events of a streamed chat, as they come."""
    request = body(stream=True, stream_options={"include_usage": True}, **fields)
    async with (
        aiohttp.ClientSession(timeout=_TIMEOUT) as session,
        session.post(f"{deployment.url}/v1/chat/completions", json=request) as response,
    ):
        assert response.status == 200, await response.text()
        yield _events(response)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    async for line in response.content:
        text = line.decode().strip()
        if text.startswith("data: ") and text != "data: [DONE]":
            yield json.loads(text.removeprefix("data: "))
        elif text.startswith("event: error"):
            yield {"error": text}


async def whole(deployment: Deployment, **fields: Any) -> Ending:
    """Stream a chat to its end."""
    ending = Ending()
    async with streaming(deployment, **fields) as events:
        async for event in events:
            ending.add(event)
    return ending


class Ending:
    """How a stream ended."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.error: Any = None

    def add(self, event: dict[str, Any]) -> None:
        self.error = event.get("error") or self.error
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices", []):
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
