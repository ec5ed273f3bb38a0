# SPDX-License-Identifier: MIT
"""Starts the engine process, watches it, ends it.

Its stdin is the life line: when this process ends, for whatever reason, the
engine process reads EOF and ends too. In the other direction a pidfd tells the
event loop of the engine's end in the moment it happens, and a watchdog of an
engine that lives and does nothing more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from dynamo_tokenspeed.protocol import (
    Capacity,
    Control,
    EngineConfig,
    EngineMessage,
    Failed,
    Heartbeat,
    Shutdown,
    WorkerMessage,
)
from dynamo_tokenspeed.worker.engine_link import EngineLink
from dynamo_tokenspeed.worker.errors import StartError
from dynamo_tokenspeed.worker.watchdog import Watchdog, sign_comes

logger = logging.getLogger(__name__)

ENGINE_MODULE = "dynamo_tokenspeed.engine"
_LAST_WORDS_SECONDS = 0.05  # what an ended process sent may still be on its way through ZMQ
_GIVE_UP_SECONDS = 1.0  # from `Failed` to the end of the process
_STOP_SECONDS = 3.0
_NOBODY_WAITS = 0  # call id of a control whose reply is not read


class EngineProcess:
    """One engine process and the link to it.

    `on_message` gets every message after `Capacity`. `on_death` gets one sentence when the process
    ends without having been asked to, or has to be ended: it has given no sign of life for
    `step_timeout` seconds (0: it is not watched). `name_request` names a request in that sentence.
    """

    def __init__(
        self,
        config: EngineConfig,
        on_message: Callable[[EngineMessage], None],
        on_death: Callable[[str], None],
        module: str = ENGINE_MODULE,
        *,
        step_timeout: float = 0.0,
        name_request: Callable[[int], str] = str,
    ) -> None:
        self._config = config
        self._on_message = on_message
        self._on_death = on_death
        self._module = module
        self._step_timeout = step_timeout
        self._name_request = name_request
        self._heartbeat: Heartbeat | None = None
        self._watching: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._link: EngineLink | None = None
        self._pidfd: int | None = None
        self._ready: asyncio.Future[Capacity] | None = None
        self._ended = asyncio.Event()
        self._last_words = ""
        self._stopping = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> Capacity:
        """Raises `StartError` with the engine's own sentence when it cannot serve."""
        self._ready = asyncio.get_running_loop().create_future()
        self._link = EngineLink(self._receive)
        memory = Heartbeat.shared_memory(self._config.max_num_seqs)
        self._heartbeat = Heartbeat(self._config.max_num_seqs, memory)
        config = msgspec.structs.replace(
            self._config, inbox=self._link.inbox, outbox=self._link.outbox, heartbeat_fd=memory
        )
        # A session of its own: Ctrl-C in the terminal is for the worker, which drains.
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[memory],
        )
        os.close(memory)
        self._watch(self._process)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(config) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended at once: the pidfd says so
        capacity = await self._ready
        if self._step_timeout:
            self._watching = asyncio.create_task(self._watch_steps())
        return capacity

    def give_up(self, error: StartError) -> None:
        """Let `start` raise this, unless it has returned."""
        if self._ready is not None and not self._ready.done():
            self._stopping = True
            self._ready.set_exception(error)

    def send(self, message: WorkerMessage) -> bool:
        """False when the engine process is not there to take it."""
        return self._link is not None and self._link.send(message)

    async def gives_a_sign(self, seconds: float) -> bool:
        """Whether it does anything within so many seconds, be it that it takes a message."""
        return self._heartbeat is not None and await sign_comes(
            self._heartbeat, self._ping, seconds
        )

    async def stop(self) -> None:
        """End the process and close the link. Idempotent, safe after a failed start."""
        self._stopping = True
        if self._watching is not None:
            self._watching.cancel()
        if self._process is not None and self._process.returncode is None:
            self.send(Shutdown())
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._ended.wait(), _STOP_SECONDS)
            except TimeoutError:
                logger.warning("engine process %d does not end: killing it", self._process.pid)
                self._process.kill()
                await self._ended.wait()
        if self._link is not None:
            self._link.close()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap, process)

    def _ping(self) -> bool:
        return self.send(Control(_NOBODY_WAITS, "ping"))

    async def _watch_steps(self) -> None:
        link, heartbeat = self._link, self._heartbeat
        assert link is not None and heartbeat is not None
        watchdog = Watchdog(heartbeat, self._step_timeout, lambda: link.sent, self._ping)
        await watchdog.run()
        if self._process is None or self._stopping:
            return
        sentence = watchdog.what_does_not_return(self._name_request)
        if is_stopped(self._process.pid):
            sentence = f"engine process {self._process.pid} is stopped (by SIGSTOP?): {sentence}"
        self._stopping = True
        self._process.kill()
        self._on_death(sentence)

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None or self._pidfd is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = None
        loop.call_later(_LAST_WORDS_SECONDS, self._bury, process.returncode)

    def _bury(self, returncode: int) -> None:
        if self._link is not None:
            self._link.read_what_is_left()
        sentence = self._last_words or f"the engine process ended: {_how(returncode)}"
        if self._ready is not None and not self._ready.done():
            self.give_up(StartError(sentence))
        elif not self._stopping:
            self._on_death(sentence)
        self._ended.set()

    def _receive(self, message: EngineMessage) -> None:
        if isinstance(message, Failed):
            self._last_words = message.sentence
            if self._process is not None:  # it ends by itself, or is ended
                asyncio.get_running_loop().call_later(_GIVE_UP_SECONDS, self._process.kill)
        elif isinstance(message, Capacity):
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(message)
        else:
            self._on_message(message)


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped the process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in ("T", "t")


def _how(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
