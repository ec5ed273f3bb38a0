# SPDX-License-Identifier: MIT
"""The open streams: a step's tokens in, each stream's delta out.

This is the worker's hot path. One `StepOutput` carries the tokens of every
stream; `deliver` hands them out in one pass. A consumer that is late finds
several tokens waiting and takes them in one chunk.

Whatever ends a stream ends it once, here, and is counted here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from dynamo_tokenspeed.protocol import FinishReason, StepOutput
from dynamo_tokenspeed.protocol.messages import TokenLogprobs
from dynamo_tokenspeed.worker.metrics import End, RequestMetrics

Chunk = dict[str, Any]  # dynamo.common.backend.engine.GenerateChunk

_ENDS = {int(FinishReason.STOP): End.STOP, int(FinishReason.LENGTH): End.LENGTH}


class Stream:
    """What one request has produced and its consumer has not taken yet."""

    __slots__ = (
        "_waiter",
        "cached_tokens",
        "completion_tokens",
        "error",
        "finish",
        "first_token_at",
        "last_token_at",
        "logprobs",
        "opened_at",
        "prompt_tokens",
        "request_id",
        "stop_token_ids",
        "tokens",
        "wants_logprobs",
    )

    def __init__(
        self,
        request_id: int,
        prompt_tokens: int,
        *,
        stop_token_ids: frozenset[int] = frozenset(),
        wants_logprobs: bool = False,
    ) -> None:
        self.request_id = request_id
        self.prompt_tokens = prompt_tokens
        self.stop_token_ids = stop_token_ids
        self.wants_logprobs = wants_logprobs
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.finish: End | None = None
        self.error: BaseException | None = None
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.opened_at = time.perf_counter()
        self.first_token_at = 0.0  # not yet
        self.last_token_at = 0.0
        self._waiter: asyncio.Future[None] | None = None

    async def next_chunk(self) -> Chunk:
        """The tokens that came since the last call, waiting for one if there are none.

        The first chunk carries the usage, so far as it is known then: the frontend may end the
        stream at a stop string, and then never reads the last one, which carries it again, with
        `finish_reason`. Raises the stream's error once the tokens before it are taken.
        """
        while not (self.tokens or self.finish or self.error):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.error is not None and not self.tokens:
            raise self.error
        tokens, self.tokens = self.tokens, []
        self.completion_tokens += len(tokens)
        chunk: Chunk = {"token_ids": tokens, "index": 0}
        if self.wants_logprobs:
            self._add_logprobs(chunk)
        if self.finish is not None or self.completion_tokens == len(tokens):
            self._add_usage(chunk)
        if self.finish is not None:
            self._add_end(chunk)
        return chunk

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _add_logprobs(self, chunk: Chunk) -> None:
        records, self.logprobs = self.logprobs, []
        chunk["log_probs"] = [record.logprob for record in records]
        if any(record.top_ids for record in records):
            chunk["top_logprobs"] = [_alternatives(record) for record in records]

    def _add_usage(self, chunk: Chunk) -> None:
        chunk["completion_usage"] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }
        chunk["engine_data"] = {
            "kv_cache_hit": {
                "prompt_tokens": self.prompt_tokens,
                "reused_tokens": self.cached_tokens,
            }
        }

    def _add_end(self, chunk: Chunk) -> None:
        assert self.finish is not None
        chunk["finish_reason"] = self.finish.value
        tokens = chunk["token_ids"]
        if self.finish is End.STOP and tokens and tokens[-1] in self.stop_token_ids:
            chunk["stop_reason"] = tokens[-1]


def _alternatives(record: TokenLogprobs) -> list[dict[str, Any]]:
    ranked = enumerate(zip(record.top_ids, record.top_logprobs, strict=True), start=1)
    return [  # the frontend fills in the texts
        {"rank": rank, "token_id": token_id, "token": None, "logprob": logprob}
        for rank, (token_id, logprob) in ranked
    ]


class StreamTable:
    """Every stream whose request the engine still works on, by request id."""

    def __init__(self, metrics: RequestMetrics) -> None:
        self._open: dict[int, Stream] = {}  # oldest first
        self._waiting: set[int] = set()  # those without a slot so far
        self._metrics = metrics
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, stream: Stream) -> bool:
        return stream.request_id in self._open

    @property
    def waiting(self) -> int:
        """Streams whose requests have not had a slot yet."""
        return len(self._waiting)

    def oldest(self) -> Stream | None:
        return next(iter(self._open.values()), None)

    def add(self, stream: Stream) -> None:
        self._open[stream.request_id] = stream
        self._waiting.add(stream.request_id)
        self._all_closed.clear()

    def admit(self, request_ids: Iterable[int]) -> None:
        """These requests have a slot; one that was retracted had one before."""
        now = time.perf_counter()
        for request_id in request_ids:
            if request_id in self._waiting:
                self._waiting.remove(request_id)
                self._metrics.queue.observe(now - self._open[request_id].opened_at)

    def deliver(self, step: StepOutput) -> None:
        """Hand every token of `step` to its stream; those of closed streams are dropped."""
        streams = self._open
        request_ids = memoryview(step.request_ids).cast("Q")
        cached_tokens = memoryview(step.cached_tokens).cast("i")
        for record in step.logprobs:
            stream = streams.get(request_ids[record.index])
            if stream is not None:
                stream.logprobs.append(record)
        now = time.perf_counter()
        token_ids = memoryview(step.token_ids).cast("i")
        for i, (request_id, token, finish) in enumerate(
            zip(request_ids, token_ids, step.finish_reasons, strict=True)
        ):
            stream = streams.get(request_id)
            if stream is None:
                continue
            stream.tokens.append(token)
            if stream.last_token_at:
                self._metrics.inter_token.observe(now - stream.last_token_at)
            else:
                stream.first_token_at = now
                stream.cached_tokens = cached_tokens[i]
                self._metrics.begin(
                    now - stream.opened_at, stream.prompt_tokens, stream.cached_tokens
                )
            stream.last_token_at = now
            if finish:
                stream.finish = _ENDS[finish]
                self._close(stream, _ENDS[finish])
                self._metrics.finish(
                    now - stream.opened_at,
                    now - stream.first_token_at,
                    stream.prompt_tokens,
                    stream.completion_tokens + len(stream.tokens),
                )
            stream.wake()
        self._metrics.generated_tokens += len(token_ids)

    def cancel(self, stream: Stream) -> bool:
        """End the stream as cancelled. False when it had already ended."""
        if stream not in self:
            return False
        stream.finish = End.CANCELLED
        self._close(stream, End.CANCELLED)
        stream.wake()
        return True

    def fail(self, request_id: int, error: BaseException, end: End) -> None:
        """End one stream with an exception; unknown ids are ignored."""
        stream = self._open.get(request_id)
        if stream is not None:
            stream.error = error
            self._close(stream, end)
            stream.wake()

    def fail_all(self, error: BaseException, end: End) -> list[int]:
        """End every open stream with an exception; returns whose."""
        request_ids = list(self._open)
        for request_id in request_ids:
            self.fail(request_id, error, end)
        return request_ids

    async def all_closed(self) -> None:
        """Returns once no stream is open."""
        await self._all_closed.wait()

    def _close(self, stream: Stream, end: End) -> None:
        del self._open[stream.request_id]
        self._waiting.discard(stream.request_id)
        self._metrics.end(end)
        if not self._open:
            self._all_closed.set()
