# SPDX-License-Identifier: MIT
"""How far the weights are: a bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

log = logging.getLogger("dynamo_tokenspeed.engine")

OnProgress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in all, tensor name)."""

LOG_INTERVAL_S = 5.0


@contextmanager
def load_progress() -> Iterator[OnProgress]:
    """Shows the loading of weights on stderr."""
    if not sys.stderr.isatty():
        yield _log_lines()
        return
    columns = (
        TextColumn("Loading weights"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")

        def update(done: int, total: int, tensor: str) -> None:
            progress.update(task, completed=done, total=total, description=tensor)

        yield update


def _log_lines() -> OnProgress:
    due = time.monotonic() + LOG_INTERVAL_S

    def line(done: int, total: int, tensor: str) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + LOG_INTERVAL_S
            log.info("loading weights: %.0f%% (%s)", 100 * done / max(total, 1), tensor)

    return line
