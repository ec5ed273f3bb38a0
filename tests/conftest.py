# SPDX-License-Identifier: MIT
"""What holds for every test: no program that a test started survives the session."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

_PR_SET_CHILD_SUBREAPER = 36
_SECONDS_TO_END = 5.0


def pytest_sessionstart(session: pytest.Session) -> None:
    """Orphans of the programs that tests start become our children: none can hide."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    deadline = time.monotonic() + _SECONDS_TO_END
    while (left := _children()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, command in left.items():
        print(f"\nERROR: a test left process {pid} running: {command}")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _children() -> dict[int, str]:
    """Our living children by process id, with their command lines."""
    children = {}
    for listing in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, listing.read_text().split()):
            with suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                # A zombie has no command line; Python's own helper ends after us.
                if command and "multiprocessing.resource_tracker" not in command:
                    children[pid] = command.strip()
    return children
