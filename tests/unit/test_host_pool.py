# SPDX-License-Identifier: MIT
"""Pages move between the KV pool and the host tier as a plan says."""

from __future__ import annotations

from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dynamo_tokenspeed.engine import host_pool
from dynamo_tokenspeed.engine.host_pool import LOAD, STORE, HostPool
from dynamo_tokenspeed.model import KVPool
from dynamo_tokenspeed.model.kv_pool import KVSpec

PAGES, HOST_PAGES = 6, 8


@pytest.fixture
def pool() -> KVPool:
    pool = KVPool(KVSpec(num_layers=3, width=5), PAGES, 4, torch.float32, "cpu")
    pool.kv.copy_(torch.randn(pool.kv.shape))
    return pool


def plan(*transfers: tuple[int, list[int], list[int]]):
    """A plan of (kind, device pages, host pages)."""
    kinds, device, host = zip(*transfers, strict=True) if transfers else ((), (), ())
    return SimpleNamespace(
        transfer_id=np.arange(len(transfers), dtype=np.uint64),
        transfer_kind=np.array(kinds, np.uint8),
        transfer_offset=np.cumsum([0, *map(len, device)], dtype=np.int32),
        transfer_device_page=np.array([*chain(*device)], np.int32),
        transfer_host_page=np.array([*chain(*host)], np.int32),
    )


def test_what_is_stored_comes_back_on_any_page(pool: KVPool) -> None:
    host = HostPool(pool, HOST_PAGES)
    before = pool.kv.clone()

    host.transfer(plan((STORE, [4, 1], [7, 0]), (STORE, [2], [3])))
    pool.kv.zero_()
    host.transfer(plan((LOAD, [0, 5, 3], [0, 3, 7])))

    assert torch.equal(pool.kv[:, [0, 5, 3]], before[:, [1, 2, 4]])
    assert not pool.kv[:, [1, 2, 4]].any()


def test_a_page_is_stored_before_a_load_takes_its_place(pool: KVPool) -> None:
    host = HostPool(pool, HOST_PAGES)
    before = pool.kv.clone()
    host.transfer(plan((STORE, [1], [1])))

    host.transfer(plan((LOAD, [2], [1]), (STORE, [2], [5])))
    assert torch.equal(pool.kv[:, 2], before[:, 1])

    host.transfer(plan((LOAD, [3], [5])))
    assert torch.equal(pool.kv[:, 3], before[:, 2])


def test_pages_that_the_staging_buffer_cannot_hold_go_in_portions(
    pool: KVPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_pool, "STAGED_BYTES", 2 * pool.kv[:, 0].nbytes)
    host = HostPool(pool, HOST_PAGES)
    before = pool.kv.clone()

    host.transfer(plan((STORE, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4])))
    host.transfer(plan((LOAD, [4, 3, 2, 1, 0], [0, 1, 2, 3, 4])))

    assert torch.equal(pool.kv[:, :5], before[:, [4, 3, 2, 1, 0]])


def test_a_plan_without_transfers_touches_nothing(pool: KVPool) -> None:
    before = pool.kv.clone()

    HostPool(pool, HOST_PAGES).transfer(plan())

    assert torch.equal(pool.kv, before)
