# SPDX-License-Identifier: MIT
"""A request that lasts too long ends, and no other one does; the clock is the test's."""

from __future__ import annotations

import pytest
from dynamo.llm.exceptions import HttpError, InvalidArgument

from dynamo_tokenspeed.worker.metrics import End, RequestMetrics
from dynamo_tokenspeed.worker.request_timeout import RequestTimeout
from dynamo_tokenspeed.worker.streams import Stream, StreamTable

SECONDS = 30.0


class Late:
    """A table of streams whose late ones are ended, and why."""

    def __init__(self) -> None:
        self.streams = StreamTable(RequestMetrics())
        self.errors: dict[int, Exception] = {}
        self.timeout = RequestTimeout(SECONDS, self.streams, self.end)

    def open(self, request_id: int, at: float, first_token_at: float = 0.0) -> Stream:
        stream = Stream(request_id, prompt_tokens=10)
        stream.opened_at, stream.first_token_at = at, first_token_at
        self.streams.add(stream)
        return stream

    def end(self, stream: Stream, error: Exception) -> None:
        self.errors[stream.request_id] = error
        self.streams.fail(stream.request_id, error, End.TIMEOUT)


@pytest.fixture
def late() -> Late:
    return Late()


def test_what_is_late_ends_and_what_is_not_goes_on(late: Late) -> None:
    late.open(1, at=100)
    late.open(2, at=110)
    late.open(3, at=125)

    left = late.timeout.end_what_is_late(now=140.0)

    assert sorted(late.errors) == [1, 2]
    assert left == 15  # then the third is late


def test_with_no_stream_nothing_is_late_for_the_whole_time(late: Late) -> None:
    assert late.timeout.end_what_is_late(now=100.0) == SECONDS


def test_a_stream_that_has_ended_is_not_late(late: Late) -> None:
    late.streams.cancel(late.open(1, at=100))

    late.timeout.end_what_is_late(now=200.0)

    assert late.errors == {}


def test_one_without_a_token_may_try_again(late: Late) -> None:
    late.open(1, at=100)

    late.timeout.end_what_is_late(now=130.0)

    error = late.errors[1]
    assert isinstance(error, HttpError)
    assert error.code == 503
    assert "no token within 30 s (--request-timeout)" in error.message


def test_one_with_tokens_has_asked_for_too_much(late: Late) -> None:
    late.open(1, at=100, first_token_at=101)

    late.timeout.end_what_is_late(now=130.0)

    assert isinstance(late.errors[1], InvalidArgument)
    assert "longer than 30 s (--request-timeout)" in str(late.errors[1])
