# SPDX-License-Identifier: MIT
"""`--max-queued-requests`: one request more is refused at once."""

from __future__ import annotations

from dynamo.llm.exceptions import HttpError

from dynamo_tokenspeed.protocol import Stats
from dynamo_tokenspeed.worker.streams import StreamTable


class QueueLimit:
    """Knows at the door who waits, without asking the engine."""

    def __init__(self, limit: int | None, max_num_seqs: int, streams: StreamTable) -> None:
        """`limit`: None for a queue without one."""
        self._limit = limit
        self._max_num_seqs = max_num_seqs
        self._streams = streams

    def refuse_if_full(self, latest: Stats) -> None:
        """503, which no frontend migrates, if as many wait as may.

        Free slots are for those that wait, unless the latest step has left somebody waiting: then
        pages are short, and who comes now waits too.
        """
        if self._limit is None:
            return
        waiting = self._streams.waiting
        free = self._max_num_seqs - (len(self._streams) - waiting)
        if waiting >= self._limit + (0 if latest.waiting else free):
            raise HttpError(
                503,
                f"{waiting} requests wait at this worker, and no more than {self._limit} may "
                "(--max-queued-requests): try again later",
            )
