# SPDX-License-Identifier: MIT
"""One message per step to the worker, arrays as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ts_scheduler
import zmq

from dynamo_tokenspeed.protocol import EngineMessage, FloorReport, Stats, StepOutput, encode

if TYPE_CHECKING:
    from dynamo_tokenspeed.engine.launched_step import StepResult


_STATS = Stats.__struct_fields__[:-1]  # the last is `floor`


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
        self, output: ts_scheduler.Output, result: StepResult, scheduler: ts_scheduler.Scheduler
    ) -> None:
        self._reported = _stats(scheduler)
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

    def send_stats(self, scheduler: ts_scheduler.Scheduler) -> None:
        """Report a change that no step reports (an abort of the last request, say)."""
        current = _stats(scheduler)
        if current != self._reported:
            self._reported = current
            self.send(StepOutput(b"", b"", b"", b"", current))

    def close(self) -> None:
        """Close after handing over what is queued, a `Failed` above all."""
        self._socket.close(linger=1000)


def _stats(scheduler: ts_scheduler.Scheduler) -> Stats:
    stats, floor = scheduler.stats(), scheduler.floor()
    return Stats(
        **{name: getattr(stats, name) for name in _STATS},
        floor=FloorReport(*(getattr(floor, name) for name in FloorReport.__struct_fields__)),
    )
