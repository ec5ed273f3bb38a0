# SPDX-License-Identifier: MIT
"""Requests that nobody can serve, as bodies to post, and posting them as they are."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from tiny_kimi import MAX_MODEL_LEN, VOCAB_SIZE

Endpoint = Literal["chat/completions", "completions"]
BOTH: tuple[Endpoint, ...] = ("chat/completions", "completions")
CHAT: tuple[Endpoint, ...] = ("chat/completions",)
COMPLETIONS: tuple[Endpoint, ...] = ("completions",)

_TEN_MB = 10 * 1024 * 1024
_LONG = " ".join(["def"] * MAX_MODEL_LEN)
_USER = {"role": "user", "content": "hello"}


@dataclass(frozen=True)
class BadRequest:
    """What is wrong with it; where it can be sent; which word the refusal must have."""

    name: str
    change: dict[str, Any] = field(hash=False)
    endpoints: tuple[Endpoint, ...] = BOTH
    word: str = ""
    raw: str = ""  # JSON text that Python would not write, put at the end of the body

    def body(self, endpoint: Endpoint, model: str) -> bytes:
        what = {"messages": [_USER]} if endpoint == "chat/completions" else {"prompt": "hello"}
        text = json.dumps({"model": model, "max_tokens": 4, **what, **self.change})
        return (text[:-1] + self.raw + "}").encode()


BAD_REQUESTS = [
    BadRequest(
        "over-long chat", {"messages": [_USER | {"content": _LONG}]}, CHAT, str(MAX_MODEL_LEN)
    ),
    BadRequest("over-long text", {"prompt": _LONG}, COMPLETIONS, str(MAX_MODEL_LEN)),
    BadRequest("over-long tokens", {"prompt": [5] * MAX_MODEL_LEN}, COMPLETIONS, "2048"),
    BadRequest("no messages", {"messages": []}, CHAT, "messages"),
    BadRequest("empty text", {"prompt": ""}, COMPLETIONS, "empty"),
    BadRequest("no tokens", {"prompt": []}, COMPLETIONS, "empty"),
    BadRequest("token outside the vocabulary", {"prompt": [5, VOCAB_SIZE]}, COMPLETIONS),
    BadRequest("negative token", {"prompt": [5, -1]}, COMPLETIONS),
    BadRequest(
        "token outside the vocabulary, chat", {"nvext": {"token_data": [1, VOCAB_SIZE]}}, CHAT
    ),
    BadRequest("max_tokens 0", {"max_tokens": 0}, word="ax"),
    BadRequest("max_tokens -1", {"max_tokens": -1}),
    BadRequest("min_tokens above max_tokens", {"min_tokens": 9}, word="min_tokens is 9"),
    BadRequest("negative temperature", {"temperature": -1}, word="emperature"),
    BadRequest("a temperature in words", {"temperature": "hot"}),
    BadRequest("NaN", {}, raw=', "temperature": NaN'),
    BadRequest("infinity", {}, raw=', "temperature": 1e999'),
    BadRequest("top_p 2", {"top_p": 2}, word="op_p"),
    BadRequest("top_p 0", {"top_p": 0}, word="op_p"),
    BadRequest("top_k -5", {"top_k": -5}, word="op_k"),
    BadRequest("min_p 2", {"min_p": 2}, word="in_p"),
    BadRequest("top_logprobs 1000", {"logprobs": True, "top_logprobs": 1000}, CHAT),
    BadRequest("top_logprobs 100", {"logprobs": True, "top_logprobs": 100}, CHAT, "ogprobs"),
    BadRequest("logprobs 1000", {"logprobs": 1000}, COMPLETIONS),
    BadRequest("n 2", {"n": 2}, word="n is 2"),
    BadRequest("an unknown sampling field", {"sampling_wizardry": 1}, word="sampling_wizardry"),
    BadRequest("allowed tokens", {"allowed_token_ids": [5]}, word="allowed_token_ids"),
    BadRequest("a priority of 71 bits", {"nvext": {"agent_hints": {"priority": 2**70}}}),
    BadRequest("stop tokens below 0", {"stop_token_ids": [-1]}, word="stop_token_ids"),
    BadRequest("a grammar", {"guided_regex": "a+"}, word="guided decoding"),
    BadRequest("10 MB of tokens", {"prompt": [1000] * (_TEN_MB // 6)}, COMPLETIONS, "2048"),
    BadRequest(
        "10 MB of chat",
        {"messages": [_USER | {"content": " dictionary" * (_TEN_MB // 11)}]},
        CHAT,
        "2048",
    ),
]

BAD_CHATS = [bad for bad in BAD_REQUESTS if "chat/completions" in bad.endpoints]


def post(url: str, endpoint: Endpoint, body: bytes) -> tuple[int, str]:
    """Status and error message (or the whole answer, where there is no error)."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/v1/{endpoint}", body, headers)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    return response.status, json.loads(text).get("message", text)
