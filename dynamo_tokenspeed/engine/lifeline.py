# SPDX-License-Identifier: MIT
"""The engine process lives no longer than its worker.

The worker holds the other end of our stdin and never writes to it after the
configuration. When the worker ends, however it ends, the kernel closes that end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

from dynamo_tokenspeed.protocol import EngineConfig

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def hold(config: EngineConfig) -> None:
    """Start the thread that ends this process when the worker is gone."""
    threading.Thread(target=_wait_for_the_end, args=(config,), daemon=True).start()


def hold_even_if_stuck() -> None:
    """From now on the kernel itself ends this process with its worker: while native code is stuck,
    or we are stopped, no thread of ours would. There are no sockets left to remove by then."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_for_the_end(config: EngineConfig) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    _remove_sockets(config)
    os._exit(0)


def _remove_sockets(config: EngineConfig) -> None:
    """A worker that was killed while we started could not remove its socket directory."""
    for endpoint in (config.inbox, config.outbox):
        path = Path(endpoint.removeprefix("ipc://"))
        if endpoint.startswith("ipc:///") and path.is_socket():
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: it is not ours alone
                path.parent.rmdir()
