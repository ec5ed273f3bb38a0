# SPDX-License-Identifier: MIT
"""Pages move between the KV pool and the host tier as a plan says, and word comes of each end."""

from __future__ import annotations

import select
import threading
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ts_scheduler import Transfer

from dynamo_tokenspeed.engine.host_pool import HostPool
from dynamo_tokenspeed.engine.transfers import Transfers
from dynamo_tokenspeed.model import KVPool
from dynamo_tokenspeed.model.kv_pool import KVSpec

PAGES, HOST_PAGES = 6, 8
SECONDS = 60  # that nothing here takes
STORE, LOAD, DISPLACE = Transfer.STORE, Transfer.LOAD, Transfer.DISPLACE


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def pool(request: pytest.FixtureRequest) -> KVPool:
    pool = KVPool(KVSpec(num_layers=3, width=5), PAGES, 4, request.param, "cpu")
    pool.kv.copy_(torch.randn(pool.kv.shape))
    return pool


def plan(*transfers: tuple[int, list[int], list[int]]):
    """A plan of (kind, device pages, host pages); ids count from 0."""
    kinds, device, host = zip(*transfers, strict=True) if transfers else ((), (), ())
    return SimpleNamespace(
        transfer_id=np.arange(len(transfers), dtype=np.uint64),
        transfer_kind=np.array(kinds, np.uint8),
        transfer_offset=np.cumsum([0, *map(len, device)], dtype=np.int32),
        transfer_device_page=np.array([*chain(*device)], np.int32),
        transfer_host_page=np.array([*chain(*host)], np.int32),
    )


def carry_out(transfers: Transfers, plan) -> list[tuple[int, bool]]:
    """As a step does; what has ended, in that order."""
    transfers.begin(plan)
    transfers.store(plan)
    ended: list[tuple[int, bool]] = []
    while len(ended) < len(plan.transfer_id):
        assert select.select([transfers.fd], [], [], SECONDS)[0]
        ended += transfers.ended()
    return ended


def test_what_is_stored_comes_back_on_any_page(pool: KVPool) -> None:
    transfers = Transfers(HostPool(pool, HOST_PAGES))
    before = pool.kv.clone()

    carry_out(transfers, plan((STORE, [4, 1], [7, 0]), (DISPLACE, [2], [3])))
    pool.kv.zero_()
    carry_out(transfers, plan((LOAD, [0, 5, 3], [0, 3, 7])))

    assert torch.equal(pool.kv[:, [0, 5, 3]], before[:, [1, 2, 4]])
    assert not pool.kv[:, [1, 2, 4]].any()


def test_a_page_is_stored_before_a_load_takes_its_place(pool: KVPool) -> None:
    transfers = Transfers(HostPool(pool, HOST_PAGES))
    before = pool.kv.clone()
    carry_out(transfers, plan((STORE, [1], [1])))

    ended = carry_out(transfers, plan((DISPLACE, [2], [5]), (LOAD, [2], [1])))

    assert ended == [(0, True), (1, True)]
    assert torch.equal(pool.kv[:, 2], before[:, 1])
    carry_out(transfers, plan((LOAD, [3], [5])))
    assert torch.equal(pool.kv[:, 3], before[:, 2])


def test_a_step_waits_for_its_own_stores_alone(
    pool: KVPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = HostPool(pool, HOST_PAGES)
    transfers = Transfers(tier)
    may_load = threading.Event()
    load = tier.load
    monkeypatch.setattr(tier, "load", lambda *pages: may_load.wait(SECONDS) and load(*pages))
    both = plan((STORE, [0], [0]), (LOAD, [1], [1]))

    transfers.begin(both)
    transfers.store(both)

    assert transfers.ended() == [(0, True)]
    may_load.set()
    transfers.wait()
    assert transfers.ended() == [(1, True)]


def test_a_plan_may_be_overwritten_once_its_step_has_run(
    pool: KVPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = HostPool(pool, HOST_PAGES)
    transfers = Transfers(tier)
    before = pool.kv.clone()
    carry_out(transfers, plan((STORE, [1], [1])))
    may_load = threading.Event()
    load = tier.load
    monkeypatch.setattr(tier, "load", lambda *pages: may_load.wait(SECONDS) and load(*pages))
    of_a_step = plan((LOAD, [5], [1]))
    transfers.begin(of_a_step)

    of_a_step.transfer_device_page[:] = of_a_step.transfer_host_page[:] = 0
    may_load.set()
    transfers.wait()

    assert torch.equal(pool.kv[:, 5], before[:, 1])
    assert torch.equal(pool.kv[:, 0], before[:, 0])


@pytest.mark.parametrize("kind", [STORE, LOAD, DISPLACE])
def test_a_transfer_that_cannot_be_carried_out_fails_and_no_other(
    kind: Transfer, pool: KVPool, caplog: pytest.LogCaptureFixture
) -> None:
    transfers = Transfers(HostPool(pool, HOST_PAGES))

    ended = carry_out(transfers, plan((kind, [0], [HOST_PAGES]), (LOAD, [1], [1])))

    assert sorted(ended) == [(0, False), (1, True)]  # a store of the step, beside the thread's load
    assert f"transfer 0 ({kind.name.lower()}) failed" in caplog.text


def test_what_is_forgotten_has_ended_and_is_never_reported(pool: KVPool) -> None:
    transfers = Transfers(HostPool(pool, HOST_PAGES))
    before = pool.kv.clone()
    transfers.begin(plan((DISPLACE, [1], [1]), (LOAD, [2], [1])))

    transfers.forget()

    assert torch.equal(pool.kv[:, 2], before[:, 1])
    assert transfers.ended() == []
    assert carry_out(transfers, plan((LOAD, [3], [1]))) == [(0, True)]


def test_nobody_waits_for_transfers_where_there_are_none(pool: KVPool) -> None:
    transfers = Transfers(HostPool(pool, HOST_PAGES))
    before = pool.kv.clone()

    assert carry_out(transfers, plan()) == []
    transfers.wait()

    assert transfers.ended() == []
    assert torch.equal(pool.kv, before)


def test_closing_waits_for_what_is_carried_out_and_drops_the_rest(
    pool: KVPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = HostPool(pool, HOST_PAGES)
    transfers = Transfers(tier)
    begun, may_load, loads = threading.Event(), threading.Event(), []

    def load(device_pages, host_pages) -> None:
        begun.set()
        may_load.wait(SECONDS)
        loads.append(device_pages.tolist())

    monkeypatch.setattr(tier, "load", load)
    transfers.begin(plan((LOAD, [1], [1]), (LOAD, [2], [2])))
    assert begun.wait(SECONDS)
    threading.Timer(0.01, may_load.set).start()

    transfers.close()

    assert loads == [[1]]
