# SPDX-License-Identifier: MIT
"""Ports and HTTP on this machine's loopback interface; proxies are not asked."""

from __future__ import annotations

import json
import random
import socket
import urllib.error
import urllib.request
from typing import Any

HOST = "127.0.0.1"

_SECONDS = 10.0
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """A TCP port that nobody listens on now.

    Below 32768: Dynamo reads its system port as a 16-bit signed number, and the kernel
    takes the ports of outgoing connections from above, so nobody gets this one by chance.
    """
    while not is_free(HOST, port := random.randrange(20_000, 32_768)):
        pass
    return port


def is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections of a server that has ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def get_text(url: str) -> str:
    """The body of a GET; OSError (urllib.error.HTTPError included) if there is none."""
    with _opener.open(url, timeout=_SECONDS) as response:
        body: bytes = response.read()
        return body.decode()


def get_json(url: str) -> Any:
    return json.loads(get_text(url))


def post_json(url: str, body: object) -> Any:
    """The JSON answer to a POST; OSError (urllib.error.HTTPError included) if there is none."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with _opener.open(request, timeout=_SECONDS) as response:
        return json.load(response)
