# SPDX-License-Identifier: MIT
"""The reason of an end: one sentence, once, the last line on stderr, whatever the log level."""

from __future__ import annotations

import os
import sys
import time
from typing import NoReturn

_WRITING_SECONDS = 0.02  # for a line that is being written just then


def end_process(sentence: str, code: int) -> NoReturn:
    """Say it and end, at once: what an interpreter's own end would log comes behind nothing.

    Not through the log, whose level may hide it and whose form comes in front of it. Dynamo's
    threads go on logging meanwhile: they are left with nothing to log to.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    time.sleep(_WRITING_SECONDS)
    os.write(stderr, f"dynamo.tokenspeed: {' '.join(sentence.split())}\n".encode())
    os._exit(code)
