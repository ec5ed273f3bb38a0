# SPDX-License-Identifier: MIT
"""KV events on a PUB socket, in the frames that Dynamo's ZmqSource subscribes to."""

from __future__ import annotations

import time

import ts_scheduler
import zmq


class KVEventPublisher:
    """Frames `[topic, sequence number (8 bytes, big-endian), msgpack payload]`.

    A PUB socket drops what nobody subscribes to, and the router rejects a page whose parent it
    never heard of. So the socket is an XPUB, which hears of subscriptions, and each is answered
    with what is cached now: whoever comes late, comes back, or was not there at first, knows
    from then on what everybody else knows. To those who know it already it is no news.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, topic: str = ""
    ) -> None:
        self.socket = context.socket(zmq.XPUB)  # readable when a subscription has arrived
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # a second one to the same topic, too
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
        self.sent = 0  # payloads: the sequence number of the next
        self._subscribed = False

    def publish(self, scheduler: ts_scheduler.Scheduler) -> None:
        """Send what happened to the prefix cache since the last call; all of it to a newcomer."""
        if self._somebody_came():
            self._subscribed = True
            scheduler.announce_cache()
        payload = scheduler.kv_events(time.time())
        if payload is None or not self._subscribed:
            return
        self.socket.send_multipart([self._topic, self.sent.to_bytes(8, "big"), payload])
        self.sent += 1

    def close(self) -> None:
        self.socket.close(linger=0)

    def _somebody_came(self) -> bool:
        came = False
        while self.socket.poll(0):
            came |= self.socket.recv().startswith(b"\x01")
        return came
