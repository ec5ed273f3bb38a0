# SPDX-License-Identifier: MIT
"""KV events on a PUB socket, in the frames that Dynamo's ZmqSource subscribes to."""

from __future__ import annotations

import time
from collections import deque

import ts_scheduler
import zmq

MAX_HELD = 4096  # payloads kept until the first subscriber is there


class KVEventPublisher:
    """Frames `[topic, sequence number (8 bytes, big-endian), msgpack payload]`.

    A PUB socket drops what nobody subscribes to, and the router rejects a page
    whose parent it never heard of. So the socket is an XPUB, which hears of
    subscriptions, and what is published before the first one is held back.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, topic: str = ""
    ) -> None:
        self.socket = context.socket(zmq.XPUB)  # readable when a subscription has arrived
        self.socket.set_hwm(0)
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.socket.close(linger=0)
            raise OSError(
                f"the KV event endpoint {endpoint} cannot be bound ({error.strerror}): "
                "name a free one in --kv-events-config"
            ) from error
        self.endpoint = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._topic = topic.encode()
        self._sequence = 0
        self._held: deque[list[bytes]] = deque(maxlen=MAX_HELD)
        self._subscribed = False

    def publish(self, scheduler: ts_scheduler.Scheduler) -> None:
        """Send what happened to the prefix cache since the last call."""
        payload = scheduler.kv_events(time.time())
        if payload is not None:
            self._held.append([self._topic, self._sequence.to_bytes(8, "big"), payload])
            self._sequence += 1
        self._note_subscriptions()
        if self._subscribed:
            while self._held:
                self.socket.send_multipart(self._held.popleft())

    def close(self) -> None:
        self.socket.close(linger=0)

    def _note_subscriptions(self) -> None:
        while self.socket.poll(0):
            if self.socket.recv().startswith(b"\x01"):
                self._subscribed = True
