# SPDX-License-Identifier: MIT
"""Starts the engine process, watches it, ends it.

Its stdin is the life line: when this process ends, for whatever reason, the
engine process reads EOF and ends too. In the other direction a pidfd tells the
event loop of the engine's end in the moment it happens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import msgspec

from dynamo_tokenspeed.protocol import (
    Capacity,
    EngineConfig,
    EngineMessage,
    Failed,
    Shutdown,
    WorkerMessage,
)
from dynamo_tokenspeed.worker.engine_link import EngineLink
from dynamo_tokenspeed.worker.errors import StartError

logger = logging.getLogger(__name__)

ENGINE_MODULE = "dynamo_tokenspeed.engine"
_LAST_WORDS_SECONDS = 0.05  # what an ended process sent may still be on its way through ZMQ
_GIVE_UP_SECONDS = 1.0  # from `Failed` to the end of the process
_STOP_SECONDS = 3.0


class EngineProcess:
    """One engine process and the link to it.

    `on_message` gets every message after `Capacity`. `on_death` gets one
    sentence when the process ends without having been asked to.
    """

    def __init__(
        self,
        config: EngineConfig,
        on_message: Callable[[EngineMessage], None],
        on_death: Callable[[str], None],
        module: str = ENGINE_MODULE,
    ) -> None:
        self._config = config
        self._on_message = on_message
        self._on_death = on_death
        self._module = module
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
        config = msgspec.structs.replace(
            self._config, inbox=self._link.inbox, outbox=self._link.outbox
        )
        # A session of its own: Ctrl-C in the terminal is for the worker, which drains.
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module], stdin=subprocess.PIPE, start_new_session=True
        )
        self._watch(self._process)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(config) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended at once: the pidfd says so
        return await self._ready

    def give_up(self, sentence: str) -> None:
        """Let `start` raise `StartError(sentence)`, unless it has returned."""
        if self._ready is not None and not self._ready.done():
            self._stopping = True
            self._ready.set_exception(StartError(sentence))

    def send(self, message: WorkerMessage) -> bool:
        """False when the engine process is not there to take it."""
        return self._link is not None and self._link.send(message)

    async def stop(self) -> None:
        """End the process and close the link. Idempotent, safe after a failed start."""
        self._stopping = True
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
            self.give_up(sentence)
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


def _how(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
