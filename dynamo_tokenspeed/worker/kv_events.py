# SPDX-License-Identifier: MIT
"""Where the engine publishes KV events: `--kv-events-config`, in vLLM's words."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dynamo_tokenspeed.worker.errors import UsageError
from dynamo_tokenspeed.worker.ports import is_served, why_not_bindable

_KEYS = ("enable_kv_cache_events", "publisher", "endpoint", "topic")
_ANY_LOCAL_PORT = "tcp://127.0.0.1:*"


@dataclass(frozen=True)
class KVEventsConfig:
    """`endpoint` is "" when events are off."""

    endpoint: str
    topic: str = ""


def parse_kv_events_config(text: str | None, enable_prefix_caching: bool | None) -> KVEventsConfig:
    """Raises `UsageError`. Events are on by default while prefix caching is."""
    caching = enable_prefix_caching is not False
    if text is None:
        return KVEventsConfig(_ANY_LOCAL_PORT if caching else "")
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--kv-events-config is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise UsageError("--kv-events-config must be a JSON object")
    for name in given:
        if name not in _KEYS:
            raise UsageError(
                f"--kv-events-config: {name!r} is not served by this version "
                f"(served: {', '.join(_KEYS)})"
            )
    publisher = given.get("publisher", "zmq")
    if publisher not in ("zmq", "null"):
        raise UsageError(f"--kv-events-config: publisher {publisher!r} is neither zmq nor null")
    if not given.get("enable_kv_cache_events", publisher == "zmq") or publisher == "null":
        return KVEventsConfig("")
    if not caching:
        raise UsageError(
            "--kv-events-config asks for KV events, but --no-enable-prefix-caching leaves nothing "
            "to report: drop one of the two"
        )
    endpoint = given.get("endpoint") or _ANY_LOCAL_PORT
    topic = given.get("topic") or ""
    if not isinstance(endpoint, str) or not isinstance(topic, str):
        raise UsageError("--kv-events-config: endpoint and topic must be strings")
    _check_free(endpoint)
    return KVEventsConfig(endpoint, topic)


def subscriber_endpoint(bound: str) -> str:
    """The address to connect to, for a socket bound on every interface."""
    for everywhere in ("tcp://0.0.0.0:", "tcp://*:", "tcp://[::]:"):
        if bound.startswith(everywhere):
            return "tcp://127.0.0.1:" + bound.removeprefix(everywhere)
    return bound


def _check_free(endpoint: str) -> None:
    if endpoint.startswith("ipc://"):  # ZeroMQ would take over the socket of another process
        if is_served(endpoint.removeprefix("ipc://")):
            raise UsageError(
                f"--kv-events-config: endpoint {endpoint} is in use by another process: "
                "give each worker its own"
            )
        return
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not endpoint.startswith("tcp://") or not host or not (port == "*" or port.isdigit()):
        raise UsageError(
            f"--kv-events-config: endpoint {endpoint!r} is no ZMQ address such as "
            f"{_ANY_LOCAL_PORT} or tcp://*:5557"
        )
    if port in ("*", "0"):
        return
    host = {"*": "0.0.0.0"}.get(host, host).strip("[]")
    reason = why_not_bindable(host, int(port))
    if reason is not None:
        raise UsageError(
            f"--kv-events-config: endpoint {endpoint} cannot be bound ({reason}): "
            "give a free port, or * for any"
        )
