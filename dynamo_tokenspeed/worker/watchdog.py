# SPDX-License-Identifier: MIT
"""Notices an engine process that is alive and does nothing more.

It looks at the engine's heartbeat: an engine that waits for messages and has taken all of them is
idle, and is pinged now and then, as one that is stopped looks the same; any other must give a sign
of life within `--step-timeout`. What bounds a step is the machine: 2,048 tokens of a large model
are minutes on few cores. So the native kernels give signs while they compute, once for each chunk
of work, and the time is that between two signs, not that of a step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from dynamo_tokenspeed.protocol import Heartbeat

_LOOKS = 20  # within the timeout, but not more often than ...
_LEAST_SECONDS_BETWEEN = 0.05
_MOST_SECONDS_BETWEEN = 1.0
_SECONDS_BETWEEN_GLANCES = 0.01
_SECONDS_IDLE = 10.0  # between two pings


class Watchdog:
    """`sent`: messages sent to the engine so far. `ping` sends it one more.

    `run` returns once the engine has given no sign of life for `seconds`.
    """

    def __init__(
        self,
        heartbeat: Heartbeat,
        seconds: float,
        sent: Callable[[], int],
        ping: Callable[[], object],
    ) -> None:
        self._heartbeat = heartbeat
        self._seconds = seconds
        self._sent = sent
        self._ping = ping

    async def run(self) -> None:
        between = min(max(self._seconds / _LOOKS, _LEAST_SECONDS_BETWEEN), _MOST_SECONDS_BETWEEN)
        last, looked_at = self._heartbeat.sign(), time.monotonic()
        silent = idle = 0.0
        while silent < self._seconds:
            await asyncio.sleep(between)
            sign, now = self._heartbeat.sign(), time.monotonic()
            # A worker that was itself stopped, or had no CPU, has not seen what happened meanwhile.
            elapsed = min(now - looked_at, 2 * between)
            if sign != last:
                silent = idle = 0.0
            elif not sign.busy and sign.received == self._sent():
                silent, idle = 0.0, idle + elapsed
                if idle >= _SECONDS_IDLE:
                    self._ping()
                    idle = 0.0
            else:
                silent += elapsed
            last, looked_at = sign, now

    def what_does_not_return(self, name_request: Callable[[int], str]) -> str:
        """The step, and what is in it; or that it is none."""
        step = self._heartbeat.step()
        waited = f"has not moved for {self._seconds:g} s (--step-timeout {self._seconds:g})"
        if step is None:
            unread = self._sent() - self._heartbeat.sign().received
            return f"the engine {waited}, outside of a step, with {unread} messages unread"
        return (
            f"step {step.number} of the engine {waited}: {step.tokens} tokens in {step.rows} rows, "
            f"{step.absorbed_rows} of them absorbed, of {_some(step.request_ids, name_request)}"
        )


async def sign_comes(heartbeat: Heartbeat, ping: Callable[[], object], seconds: float) -> bool:
    """Whether the engine gives a sign of life within `seconds`: at once, unless it cannot."""
    before, deadline = heartbeat.sign(), time.monotonic() + seconds
    ping()
    while heartbeat.sign() == before:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_SECONDS_BETWEEN_GLANCES)
    return True


_MOST_NAMED = 8


def _some(request_ids: list[int], name_request: Callable[[int], str]) -> str:
    named = ", ".join(map(name_request, request_ids[:_MOST_NAMED]))
    more = len(request_ids) - _MOST_NAMED
    noun = "request" if len(request_ids) == 1 else "requests"
    return f"{noun} {named}" + (f" and {more} more" if more > 0 else "")
