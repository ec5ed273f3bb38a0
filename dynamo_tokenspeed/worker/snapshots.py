# SPDX-License-Identifier: MIT
"""The engine's latest statistics, published to the router at a bounded rate."""

from __future__ import annotations

import asyncio
from typing import Any

from dynamo.common.backend.publisher import ComponentSnapshot

from dynamo_tokenspeed.protocol import Stats

_CHANGED_SECONDS = 0.1
_IDLE_TURNS = 20  # unchanged statistics are repeated every 2 s


class SnapshotLoop:
    """Publishes `stats` when it changed, and now and then when it did not."""

    def __init__(self) -> None:
        self.stats = Stats()
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop, publisher: Any, num_pages: int) -> None:
        """From any thread: Dynamo hands the publisher over outside of the event loop."""

        def create_task() -> None:
            self._task = loop.create_task(self._run(publisher, num_pages))

        loop.call_soon_threadsafe(create_task)

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, publisher: Any, num_pages: int) -> None:
        published: Stats | None = None
        idle_turns = 0
        while True:
            idle_turns += 1
            if self.stats is not published or idle_turns >= _IDLE_TURNS:
                published, idle_turns = self.stats, 0
                publisher.publish(0, snapshot(published, num_pages))
            await asyncio.sleep(_CHANGED_SECONDS)


def snapshot(stats: Stats, num_pages: int) -> ComponentSnapshot:
    queries = stats.prefix_query_tokens
    return ComponentSnapshot(
        kv_used_blocks=stats.pages_used,
        kv_total_blocks=num_pages,
        gpu_cache_usage=stats.pages_used / num_pages,
        dp_rank=0,
        kv_cache_hit_rate=stats.prefix_hit_tokens / queries if queries else None,
    )
