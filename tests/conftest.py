# SPDX-License-Identifier: MIT
"""What holds for every test: no program that a test started survives the session."""

from __future__ import annotations

import os
import signal
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

# In the environment of this session's programs, of theirs, and of orphans: none can hide.
_MARK = "DYNAMO_TOKENSPEED_TEST_SESSION"
_SECONDS_TO_END = 5.0


def pytest_sessionstart(session: pytest.Session) -> None:
    os.environ[_MARK] = uuid.uuid4().hex
    # Programs inherit it when it is ignored (by a shell that runs us in the background), and tests
    # end them with it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest begin first: where files run side by side, none is left over."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    deadline = time.monotonic() + _SECONDS_TO_END
    while (left := _survivors()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, command in left.items():
        print(f"\nERROR: a test left process {pid} running: {command}")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _survivors() -> dict[int, str]:
    """Living processes that carry this session's mark, with their command lines."""
    mark = f"{_MARK}={os.environ[_MARK]}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile, or another user's
            if mark not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            # Python's own helper ends after us.
            if int(folder.name) != os.getpid() and "resource_tracker" not in command:
                found[int(folder.name)] = command.strip()
    return found
