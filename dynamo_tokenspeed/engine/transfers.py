# SPDX-License-Identifier: MIT
"""The transfers between device and host tier: those of a plan, and word of their end.

A step waits for the stores of what its rows write over. All else runs beside the steps, one
transfer after the other, in a thread: so a load comes behind the stores of what it displaces. It
need not wait for a step in flight, since the scheduler gives a load no page that one touches. On
cuda the thread has a stream of its own, and waits for it.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
import ts_scheduler
from ts_scheduler import Transfer as Kind

from dynamo_tokenspeed.engine.host_pool import HostPool, Pages

log = logging.getLogger(__name__)

# On the CPU transfers take what steps leave of the cores: a nice value.
NICE = 10


class Ended(NamedTuple):
    transfer_id: int
    ok: bool


class _Transfer(NamedTuple):
    id: int
    kind: Kind
    device_pages: Pages
    host_pages: Pages


class Transfers:
    """All calls but `store` are those of one thread, the step loop's."""

    def __init__(self, pool: HostPool) -> None:
        self._pool = pool
        self._under_way = 0  # begun, and not reported
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self.fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)  # counts what is in `_ended`
        weakref.finalize(self, os.close, self.fd)
        self._stream: torch.cuda.Stream | None = None
        if pool.device.type == "cuda":
            self._stream = torch.cuda.Stream(pool.device)  # type: ignore[no-untyped-call]
        leave_cores = None if self._stream is not None else lambda: os.nice(NICE)
        self._thread = ThreadPoolExecutor(1, "transfers", initializer=leave_cores)

    def begin(self, plan: ts_scheduler.Plan) -> None:
        """Start what runs beside the steps."""
        self._under_way += len(plan.transfer_id)
        for transfer in _transfers(plan):
            if transfer.kind != Kind.STORE:
                self._thread.submit(self._carry_out, transfer, self._copy_beside_steps)

    def store(self, plan: ts_scheduler.Plan) -> None:
        """Store what the plan's rows write over, in the order of its step: before them."""
        for transfer in _transfers(plan):
            if transfer.kind != Kind.STORE:
                continue
            if self._stream is None:
                self._carry_out(transfer, self._copy)
            else:
                stored = self._carry_out_on_stream(transfer)
                self._thread.submit(self._carry_out, transfer, stored)

    def ended(self) -> list[Ended]:
        """Those that have ended since the last call, in the order of their end."""
        ended = []
        while not self._ended.empty():
            ended.append(self._ended.get())
            os.eventfd_read(self.fd)
        self._under_way -= len(ended)
        return ended

    def wait(self) -> None:
        """Sleep until one has ended, if any is under way."""
        if self._under_way:
            select.select([self.fd], [], [])

    def forget(self) -> None:
        """Wait for all that were begun, and report none of them. No step is in flight."""
        self._thread.submit(lambda: None).result()
        self.ended()
        self._under_way = 0

    def close(self) -> None:
        """Wait for the one that is being carried out, and drop those behind it."""
        self._thread.shutdown(cancel_futures=True)

    def _carry_out(self, transfer: _Transfer, copy: Callable[[_Transfer], None]) -> None:
        """What cannot be stored is forgotten, what cannot be loaded is computed: nobody fails."""
        try:
            copy(transfer)
            ok = True
        except Exception:
            log.exception("transfer %d (%s) failed", transfer.id, transfer.kind.name.lower())
            ok = False
        self._ended.put(Ended(transfer.id, ok))
        os.eventfd_write(self.fd, 1)

    def _carry_out_on_stream(self, transfer: _Transfer) -> Callable[[_Transfer], None]:
        """Queue it behind what the current stream does; returns what waits for its end."""
        try:
            self._copy(transfer)
        except Exception as error:
            failure = error

            def fail(_: _Transfer) -> None:
                raise failure

            return fail
        copied = torch.cuda.current_stream(self._pool.device).record_event()
        return lambda _: copied.synchronize()

    def _copy_beside_steps(self, transfer: _Transfer) -> None:
        if self._stream is None:
            return self._copy(transfer)
        with torch.cuda.stream(self._stream):
            self._copy(transfer)
        self._stream.synchronize()

    @torch.inference_mode()
    def _copy(self, transfer: _Transfer) -> None:
        copy = self._pool.load if transfer.kind == Kind.LOAD else self._pool.store
        copy(transfer.device_pages, transfer.host_pages)


def _transfers(plan: ts_scheduler.Plan) -> list[_Transfer]:
    """Copies of what the plan says: its buffers are a later plan's before a transfer ends."""
    if not len(plan.transfer_id):
        return []
    kinds = map(Kind, plan.transfer_kind.tolist())
    begin, end = plan.transfer_offset[:-1].tolist(), plan.transfer_offset[1:].tolist()
    return [
        _Transfer(
            transfer_id,
            kind,
            plan.transfer_device_page[first:last].copy(),
            plan.transfer_host_page[first:last].copy(),
        )
        for transfer_id, kind, first, last in zip(
            plan.transfer_id.tolist(), kinds, begin, end, strict=True
        )
    ]
