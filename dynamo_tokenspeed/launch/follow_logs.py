# SPDX-License-Identifier: MIT
"""Shows what the programs of a deployment write to their logs, as they write it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dynamo_tokenspeed.launch.deployment import Deployment

_POLL_SECONDS = 0.1


@contextmanager
def follow_logs(deployment: Deployment) -> Iterator[None]:
    """Copy new log lines to stderr, each behind its program's name, within the block.

    Enter it before the deployment, so that the start is seen as well as the stop.
    """
    done = threading.Event()

    def follow() -> None:
        read: dict[Path, int] = {}
        while not done.wait(_POLL_SECONDS):
            for program in deployment.programs:
                with suppress(FileNotFoundError):  # it was stopped just now
                    _show_new_lines(program.name, program.log_path, read)

    thread = threading.Thread(target=follow, name="follow-logs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _show_new_lines(name: str, log: Path, read: dict[Path, int]) -> None:
    """Print the whole lines that `log` has gained; `read` counts the bytes shown so far."""
    with log.open("rb") as file:
        file.seek(read.get(log, 0))
        text = file.read()
    text = text[: text.rfind(b"\n") + 1]
    read[log] = read.get(log, 0) + len(text)
    for line in text.decode(errors="replace").splitlines():
        print(f"{name} | {line}", file=sys.stderr, flush=True)
