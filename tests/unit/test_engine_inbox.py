# SPDX-License-Identifier: MIT
"""An idle engine sleeps until something happens: a message, or the end of a transfer."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import ts_scheduler
import zmq

from dynamo_tokenspeed.engine.host_pool import HostPool
from dynamo_tokenspeed.engine.inbox import Inbox
from dynamo_tokenspeed.engine.outbox import Outbox
from dynamo_tokenspeed.engine.token_constraints import TokenConstraints
from dynamo_tokenspeed.engine.transfers import Transfers
from dynamo_tokenspeed.model import KVPool
from dynamo_tokenspeed.model.kv_pool import KVSpec
from dynamo_tokenspeed.protocol import Heartbeat

SECONDS = 60  # that nothing here takes


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    outbox = Outbox(context, "inproc://outbox")
    inbox = Inbox(
        context, "inproc://inbox", outbox, TokenConstraints(torch.device("cpu")), Heartbeat(1)
    )
    yield inbox
    inbox.close()
    outbox.close()
    context.destroy(linger=0)


class LoadPlan:
    """A plan that loads a page."""

    transfer_id = np.array([7], np.uint64)
    transfer_kind = np.array([ts_scheduler.Transfer.LOAD], np.uint8)
    transfer_offset = np.array([0, 1], np.int32)
    transfer_device_page = transfer_host_page = np.array([0], np.int32)


@pytest.mark.timeout(SECONDS)
def test_the_end_of_a_transfer_wakes_it_and_then_it_sleeps_again(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = HostPool(KVPool(KVSpec(1, 1), 1, 1, torch.float32, "cpu"), 1)
    transfers = Transfers(tier)
    inbox.wake_on(transfers.fd)
    asleep, polls = threading.Event(), []
    poll = inbox._poller.poll

    def poll_and_note(timeout: int | None = None):
        asleep.set()
        woken_by = poll(timeout)
        polls.append(woken_by)
        return woken_by

    monkeypatch.setattr(inbox._poller, "poll", poll_and_note)
    monkeypatch.setattr(tier, "load", lambda *pages: asleep.wait(SECONDS))
    scheduler = ts_scheduler.Scheduler(
        ts_scheduler.SchedulerConfig(
            page_size=1,
            num_pages=2,
            max_num_seqs=1,
            max_model_len=2,
            max_num_batched_tokens=2,
            chunked_prefill_size=2,
            vocab_size=2,
        )
    )
    transfers.begin(LoadPlan)

    assert inbox.apply(scheduler, wait=True)

    assert polls == [[(transfers.fd, zmq.POLLIN)]]
    assert transfers.ended() == [(7, True)]
    assert poll(0) == []  # nothing would keep it awake
