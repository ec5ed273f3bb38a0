# SPDX-License-Identifier: MIT
"""One program that the launcher starts, watches and stops.

A program leads its own process group and writes to its own log file. It cannot
outlive the launcher: the kernel kills it when the launcher dies, however that
happens (PR_SET_PDEATHSIG, see prctl(2)).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: not between fork and exec
_LOG_TAIL_BYTES = 64 * 1024


class Program:
    """A running process and its log.

    The kernel ties a child's life to the *thread* that started it: start programs
    from the main thread, or from one that lives as long as they do.
    """

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.argv = list(argv)
        self.log_path = log
        launcher = os.getpid()

        def die_with_launcher() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != launcher:  # it died before the line above
                os._exit(1)

        with log.open("wb") as output:
            self._process = subprocess.Popen(
                self.argv,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_launcher,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that killed it."""
        if self._process.returncode is None:
            peek = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self.pid, peek) is None:
                return None
            # Its pid, and with it the name of its group, is ours until it is reaped.
            self._kill_group()
            self._process.wait()
        return self._process.returncode

    def log(self) -> str:
        """The last 64 KiB it wrote; nothing if somebody removed its log."""
        try:
            with self.log_path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _LOG_TAIL_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def terminate(self) -> None:
        """Ask it to stop. Its own children are its own to stop."""
        if self.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything in its process group, now."""
        if self.returncode is None:
            self._kill_group()
            self._process.wait()

    def wait(self, timeout: float) -> bool:
        """Whether it ended within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.returncode is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # all gone, or only zombies
            os.killpg(self.pid, signal.SIGKILL)


def stop_all(programs: Sequence[Program], grace: float) -> None:
    """SIGTERM to all, and SIGKILL to what is left after `grace` seconds or an interrupt."""
    try:
        for program in programs:
            program.terminate()
        deadline = time.monotonic() + grace
        for program in programs:
            program.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for program in programs:
            program.kill()
