# SPDX-License-Identifier: MIT
"""The reason of an end is the last line on stderr, though other threads go on logging."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, threading
from dynamo_tokenspeed.worker.last_line import end_process

def log():
    while True:
        os.write(2, b"a line of a log\\n")

threads = [threading.Thread(target=log, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
end_process("it has\\n ended: \u2019tis so", 7)
"""


def test_nothing_is_logged_into_or_behind_the_last_line() -> None:
    for _ in range(10):
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, timeout=20)

        *log, last = done.stderr.decode().splitlines()
        assert done.returncode == 7
        assert last == "dynamo.tokenspeed: it has ended: \u2019tis so"
        assert set(log) <= {"a line of a log"}
