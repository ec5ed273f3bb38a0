# SPDX-License-Identifier: MIT
"""How many requests a worker lets wait, and that it lets in all that it has room for."""

from __future__ import annotations

import pytest
from dynamo.llm.exceptions import HttpError

from dynamo_tokenspeed.protocol import Stats
from dynamo_tokenspeed.worker.metrics import End, RequestMetrics
from dynamo_tokenspeed.worker.queue_limit import QueueLimit
from dynamo_tokenspeed.worker.streams import Stream, StreamTable

SLOTS = 4
NOBODY_WAITS = Stats()
PAGES_ARE_SHORT = Stats(waiting=1)


class Door:
    """Lets requests in one by one, until one is refused."""

    def __init__(self, limit: int | None) -> None:
        self.streams = StreamTable(RequestMetrics())
        self._limit = QueueLimit(limit, SLOTS, self.streams)
        self._next = 0

    def let_in(self, most: int, latest: Stats = NOBODY_WAITS) -> list[int]:
        entered = []
        for _ in range(most):
            try:
                self._limit.refuse_if_full(latest)
            except HttpError:
                break
            self.streams.add(Stream(self._next, prompt_tokens=1))
            entered.append(self._next)
            self._next += 1
        return entered


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_burst_fills_every_free_slot_and_the_queue(limit: int) -> None:
    assert len(Door(limit).let_in(most=20)) == SLOTS + limit


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_with_all_slots_taken_as_many_wait_as_may(limit: int) -> None:
    door = Door(limit)
    door.streams.admit(door.let_in(most=SLOTS))

    assert len(door.let_in(most=20)) == limit


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_free_slots_without_pages_take_nobody(limit: int) -> None:
    door = Door(limit)
    door.streams.admit(door.let_in(most=1))

    assert len(door.let_in(most=20, latest=PAGES_ARE_SHORT)) == limit


def test_whoever_gets_a_slot_or_leaves_makes_room() -> None:
    door = Door(limit=2)
    running = door.let_in(most=SLOTS)
    door.streams.admit(running)
    first, _ = door.let_in(most=20)

    door.streams.fail(running[0], RuntimeError(), End.FAILED)
    door.streams.admit([first])
    assert len(door.let_in(most=20)) == 1

    door.streams.fail(first, RuntimeError(), End.FAILED)
    assert len(door.let_in(most=20)) == 1


def test_without_a_limit_nobody_is_refused() -> None:
    assert len(Door(limit=None).let_in(most=200, latest=PAGES_ARE_SHORT)) == 200


def test_the_sentence_has_the_count_the_limit_and_the_flag() -> None:
    door = Door(limit=1)
    door.let_in(most=20)

    with pytest.raises(HttpError) as refused:
        QueueLimit(1, SLOTS, door.streams).refuse_if_full(PAGES_ARE_SHORT)

    assert refused.value.code == 503
    assert "5 requests wait" in refused.value.message
    assert "no more than 1 may (--max-queued-requests)" in refused.value.message
