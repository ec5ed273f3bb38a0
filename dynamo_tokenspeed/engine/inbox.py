# SPDX-License-Identifier: MIT
"""What the worker asks for, applied to the scheduler between two steps."""

from __future__ import annotations

import logging

import numpy as np
import ts_scheduler
import zmq

from dynamo_tokenspeed.engine.outbox import Outbox
from dynamo_tokenspeed.engine.token_constraints import TokenConstraints
from dynamo_tokenspeed.protocol import (
    Abort,
    Control,
    ControlReply,
    Heartbeat,
    Rejected,
    Shutdown,
    Submit,
    decode_worker_message,
)

log = logging.getLogger(__name__)


class Inbox:
    """The receiving end of the worker's messages."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        outbox: Outbox,
        constraints: TokenConstraints,
        heartbeat: Heartbeat,
    ) -> None:
        self._socket = context.socket(zmq.PULL)
        self._socket.set_hwm(0)
        self._socket.connect(endpoint)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._outbox = outbox
        self._constraints = constraints
        self._heartbeat = heartbeat

    def wake_on(self, source: zmq.Socket[bytes] | int) -> None:
        """Let this socket or file descriptor, too, end the wait of an idle engine."""
        self._poller.register(source, zmq.POLLIN)

    def apply(self, scheduler: ts_scheduler.Scheduler, wait: bool) -> bool:
        """Apply every message that is there; with `wait`, sleep until something happens.

        Returns False once the worker has asked for shutdown.
        """
        if wait:
            self._heartbeat.waits()
            self._poller.poll()
            self._heartbeat.works()
        while True:
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return True
            self._heartbeat.received()
            match decode_worker_message(frame):
                case Submit() as request:
                    self._submit(scheduler, request)
                case Abort(request_ids=ids):
                    for request_id in ids:
                        scheduler.abort(request_id)
                        self._constraints.forget(request_id)
                case Control() as control:
                    self._outbox.send(_control(scheduler, control))
                case Shutdown():
                    return False

    def close(self) -> None:
        self._socket.close(linger=0)

    def _submit(self, scheduler: ts_scheduler.Scheduler, request: Submit) -> None:
        try:
            submit(scheduler, request)
        except (ValueError, TypeError, OverflowError) as error:
            log.warning("request %d refused: %s", request.request_id, error)
            self._outbox.send(Rejected(request.request_id, str(error)))
            return
        self._constraints.remember(request)


def submit(scheduler: ts_scheduler.Scheduler, request: Submit) -> None:
    """Hand a request to the scheduler; ValueError with its sentence when it is refused."""
    scheduler.submit(
        request.request_id,
        np.frombuffer(request.token_ids, np.int32),
        max_tokens=request.max_tokens,
        min_tokens=request.min_tokens,
        eos_token_ids=request.eos_token_ids,
        stop_token_ids=request.stop_token_ids,
        ignore_eos=request.ignore_eos,
        cache_salt=request.cache_salt.encode(),
        priority=request.priority,
        params=request.sampling.record(),
    )


def _control(scheduler: ts_scheduler.Scheduler, control: Control) -> ControlReply:
    if control.name == "clear_prefix_cache":
        cleared = scheduler.clear_prefix_cache()
        return ControlReply(control.call_id, result={"cleared": cleared})
    if control.name == "ping":
        return ControlReply(control.call_id)
    known = "clear_prefix_cache, ping"
    return ControlReply(
        control.call_id, error=f"unknown control {control.name!r}: this engine knows {known}"
    )
