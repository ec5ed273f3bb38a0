# SPDX-License-Identifier: MIT
"""One turn: a streamed chat completion and what can be measured of it from outside."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dynamo_tokenspeed.launch.errors import LaunchError

_SECONDS = 120.0  # without a byte from the server


@dataclass(frozen=True)
class Reply:
    """What came back, and how fast. Times in seconds."""

    text: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    first_token_time: float
    total_time: float
    instance_id: int | None  # the worker that decoded it

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that no cache had."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def tokens_per_second(self) -> float:
        """While decoding, that is after the first token."""
        seconds = self.total_time - self.first_token_time
        return (self.completion_tokens - 1) / seconds if seconds > 0 else 0.0


def chat(
    url: str, body: dict[str, Any], on_text: Callable[[str], None] = lambda text: None
) -> Reply:
    """Send `body` to the frontend at `url`; `on_text` gets the reply piece by piece."""
    text: list[str] = []
    usage: dict[str, Any] = {}
    instance_id = None
    first = None
    started = time.perf_counter()
    request = body | {
        "stream": True,
        "stream_options": {"include_usage": True},
        "nvext": {"extra_fields": ["worker_id"]},
    }
    for chunk in _events(url, request):
        usage = chunk.get("usage") or usage
        worker = (chunk.get("nvext") or {}).get("worker_id") or {}
        instance_id = worker.get("decode_worker_id", instance_id)
        for choice in chunk.get("choices", ()):
            if first is None:
                first = time.perf_counter()
            if piece := choice["delta"].get("content"):
                text.append(piece)
                on_text(piece)
    ended = time.perf_counter()
    return Reply(
        text="".join(text),
        prompt_tokens=usage.get("prompt_tokens", 0),
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        completion_tokens=usage.get("completion_tokens", 0),
        first_token_time=(first or ended) - started,
        total_time=ended - started,
        instance_id=instance_id,
    )


def _events(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The data of each server-sent event up to [DONE]."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_SECONDS)
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {"Content-Type": "application/json"},
        )
        response = connection.getresponse()
        if response.status != 200:
            raise LaunchError(f"the frontend answered {response.status}: {response.read()!r}")
        for line in response:
            if not line.startswith(b"data: "):
                continue
            data = line.removeprefix(b"data: ").strip()
            if data == b"[DONE]":
                return
            event: dict[str, Any] = json.loads(data)
            if "error" in event:
                raise LaunchError(f"the frontend ended a reply with an error: {event['error']}")
            yield event
        raise LaunchError("the frontend ended a reply before it was complete")
    except (OSError, http.client.HTTPException) as error:
        raise LaunchError(f"the connection to the frontend failed: {error!r}") from error
    finally:
        connection.close()
