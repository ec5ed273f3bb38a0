# SPDX-License-Identifier: MIT
"""Addresses that this worker is told to listen on, tried before anything is started."""

from __future__ import annotations

import os
import socket

from dynamo_tokenspeed.worker.errors import UsageError

_DYNAMOS_LAST_PORT = 32767  # it reads a signed number of 16 bits


def why_not_bindable(host: str, port: int) -> str | None:
    """None when a TCP socket can be bound to the address now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        return str(error)
    return None


def is_served(path: str) -> bool:
    """Whether a process listens on the Unix socket at `path`; a file left behind does not count."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except OSError:
        return False
    return True


def check_system_port() -> None:
    """Raises `UsageError` when Dynamo's system server could not have its port.

    Dynamo itself would log that and serve on, without health, metrics and controls.
    """
    text = os.environ.get("DYN_SYSTEM_PORT", "").strip()
    if not text:
        return  # off
    try:
        port = int(text)
    except ValueError:
        port = -2
    if not -1 <= port <= _DYNAMOS_LAST_PORT:
        raise UsageError(
            f"DYN_SYSTEM_PORT is {text!r}, but Dynamo reads a number up to {_DYNAMOS_LAST_PORT}: "
            "give a free port, 0 for any, or -1 for no system server"
        )
    if port < 1:
        return  # off, or any free port
    host = os.environ.get("DYN_SYSTEM_HOST", "").strip("[] ") or "0.0.0.0"
    reason = why_not_bindable(host, port)
    if reason is not None:
        raise UsageError(
            f"DYN_SYSTEM_PORT {text} of {host} cannot be bound ({reason}): "
            "give a free port, 0 for any, or -1 for no system server"
        )
