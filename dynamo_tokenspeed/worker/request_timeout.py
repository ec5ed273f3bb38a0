# SPDX-License-Identifier: MIT
"""`--request-timeout`: no request is open for longer than that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from dynamo.llm.exceptions import HttpError, InvalidArgument

from dynamo_tokenspeed.worker.streams import Stream, StreamTable


class RequestTimeout:
    """Ends streams in the order in which they were opened, so one timer does for all."""

    def __init__(
        self, seconds: float, streams: StreamTable, end: Callable[[Stream, Exception], None]
    ) -> None:
        """`end` closes the stream with this error."""
        self._seconds = seconds
        self._streams = streams
        self._end = end

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.end_what_is_late(time.perf_counter()))

    def end_what_is_late(self, now: float) -> float:
        """Returns how long nothing can become late, in seconds."""
        while (oldest := self._streams.oldest()) is not None:
            left = oldest.opened_at + self._seconds - now
            if left > 0:
                return left
            self._end(oldest, self._error(oldest))
        return self._seconds

    def _error(self, stream: Stream) -> Exception:
        """503 or 400: 408 and 504 would take this worker out of the frontend's routing for 5 s."""
        limit = f"{self._seconds:g} s (--request-timeout)"
        error: Exception
        if stream.first_token_at:
            too_long = f"the answer took longer than {limit}: ask for fewer tokens (max_tokens)"
            error = InvalidArgument(too_long)
        else:
            too_late = f"no token within {limit}: this worker is busy, try again later"
            error = HttpError(503, too_late)
        return error
