# SPDX-License-Identifier: MIT
"""One message per step to the worker, arrays as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ts_scheduler
import zmq

from dynamo_tokenspeed.protocol import EngineMessage, Stats, StepOutput, encode

if TYPE_CHECKING:
    from dynamo_tokenspeed.engine.executor import StepResult


class Outbox:
    """The sending end of the engine's messages."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._socket = context.socket(zmq.PUSH)
        self._socket.set_hwm(0)
        self._socket.connect(endpoint)
        self._reported = Stats()

    def send(self, message: EngineMessage) -> None:
        self._socket.send(encode(message))

    def send_step(
        self, output: ts_scheduler.Output, result: StepResult, stats: ts_scheduler.Stats
    ) -> None:
        self._reported = _stats(stats)
        self.send(
            StepOutput(
                request_ids=output.request.tobytes(),
                token_ids=output.token.tobytes(),
                finish_reasons=output.finish.tobytes(),
                cached_tokens=output.cached_tokens.tobytes(),
                stats=self._reported,
                logprobs=result.logprobs(output.row),
            )
        )

    def send_stats(self, stats: ts_scheduler.Stats) -> None:
        """Report a change that no step reports (an abort of the last request, say)."""
        current = _stats(stats)
        if current != self._reported:
            self._reported = current
            self.send(StepOutput(b"", b"", b"", b"", current))

    def close(self) -> None:
        """Close after handing over what is queued, a `Failed` above all."""
        self._socket.close(linger=1000)


def _stats(stats: ts_scheduler.Stats) -> Stats:
    return Stats(*(getattr(stats, name) for name in Stats.__struct_fields__))
