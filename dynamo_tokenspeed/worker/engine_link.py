# SPDX-License-Identifier: MIT
"""The pair of ZMQ sockets between the worker and its engine process.

They live in a private directory that is removed as soon as the engine process
has connected to both, so that no later kill leaves a file behind.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable

import zmq

from dynamo_tokenspeed.protocol import (
    EngineMessage,
    WorkerMessage,
    decode_engine_message,
    encode,
)

_MESSAGES_PER_TURN = 32  # then the consumers get a turn of the event loop


class EngineLink:
    """Sends `WorkerMessage`s, calls back for every `EngineMessage`.

    The sockets are read on their file descriptors: no coroutine per message.
    """

    def __init__(self, on_message: Callable[[EngineMessage], None]) -> None:
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._directory = tempfile.mkdtemp(prefix="dynamo-tokenspeed-")  # mode 0700
        self.inbox = f"ipc://{self._directory}/inbox"
        self.outbox = f"ipc://{self._directory}/outbox"
        self._context = zmq.Context()
        self._monitors: list[zmq.Socket[bytes]] = []
        self._sender = self._bind(zmq.PUSH, self.inbox)
        self._receiver = self._bind(zmq.PULL, self.outbox)
        self._closed = False
        self.sent = 0  # messages
        self._loop.add_reader(self._receiver.FD, self._read)
        self._read()  # arms the edge-triggered descriptor

    def _bind(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        monitor = socket.get_monitor_socket(zmq.EVENT_ACCEPTED)
        self._monitors.append(monitor)
        self._loop.add_reader(monitor.FD, self._connected, socket, monitor)
        socket.bind(endpoint)
        self._connected(socket, monitor)  # arms the edge-triggered descriptor
        return socket

    def _connected(self, socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> None:
        if not monitor.poll(0):
            return
        self._loop.remove_reader(monitor.FD)
        self._monitors.remove(monitor)
        socket.disable_monitor()
        monitor.close(0)
        if not self._monitors:
            shutil.rmtree(self._directory, ignore_errors=True)

    def send(self, message: WorkerMessage) -> bool:
        """False when no engine process is there to take it."""
        if self._closed:
            return False
        try:
            self._sender.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        self.sent += 1
        return True

    def read_what_is_left(self) -> None:
        """Deliver what the engine process sent before it ended."""
        self._read(limit=None)

    def _read(self, limit: int | None = _MESSAGES_PER_TURN) -> None:
        # The descriptor is edge-triggered: read until the socket is empty, or come back.
        while not self._closed:
            try:
                frame = self._receiver.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._on_message(decode_engine_message(frame))
            if limit is not None:
                limit -= 1
                if limit == 0:
                    self._loop.call_soon(self._read)
                    return

    def close(self) -> None:
        """Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._receiver.FD)
        for monitor in self._monitors:
            self._loop.remove_reader(monitor.FD)
            monitor.close(0)
        self._monitors.clear()
        self._sender.close(0)
        self._receiver.close(0)
        self._context.term()
        shutil.rmtree(self._directory, ignore_errors=True)
