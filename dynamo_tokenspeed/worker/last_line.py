# SPDX-License-Identifier: MIT
"""The reason of an end: one sentence, once, the last line on stderr, whatever the log level."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def end_process(sentence: str, code: int) -> NoReturn:
    """Say it and end, at once: what an interpreter's own end would log comes behind nothing.

    Not through the log, whose level may hide it and whose form comes in front of it.
    """
    sys.stdout.flush()
    print(f"dynamo.tokenspeed: {' '.join(sentence.split())}", file=sys.stderr, flush=True)
    os._exit(code)
