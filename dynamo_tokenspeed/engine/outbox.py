# SPDX-License-Identifier: MIT
"""One message per step to the worker, arrays as bytes."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

import ts_scheduler
import zmq

from dynamo_tokenspeed.protocol import (
    Admitted,
    EngineMessage,
    FinishReason,
    FloorReport,
    RequestFailed,
    Stats,
    StepOutput,
    encode,
)

if TYPE_CHECKING:
    from dynamo_tokenspeed.engine.launched_step import StepResult


NO_TOKEN = (
    "no token could be sampled: every one is banned by min_tokens with the stop tokens or by "
    "logit_bias, or the model's logits are not finite; ask for fewer bans, or report this prompt"
)
_STATS = attrgetter(*Stats.__struct_fields__[:-1])  # the last is `floor`
_FLOOR = attrgetter(*FloorReport.__struct_fields__)


class Outbox:
    """The sending end of the engine's messages."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._socket = context.socket(zmq.PUSH)
        self._socket.set_hwm(0)
        self._socket.connect(endpoint)
        self._reported = Stats()

    def send(self, message: EngineMessage) -> None:
        self._socket.send(encode(message))

    def send_admitted(self, plan: ts_scheduler.Plan) -> None:
        """Whom this plan gives a slot; nothing where it admits nobody."""
        if len(plan.admitted_request):
            self.send(Admitted(plan.admitted_request.tobytes()))

    def send_step(
        self, output: ts_scheduler.Output, result: StepResult, scheduler: ts_scheduler.Scheduler
    ) -> None:
        self._reported = _stats(scheduler)
        some_failed = FinishReason.FAILED in output.finish.tobytes()
        kept = output.finish != FinishReason.FAILED if some_failed else slice(None)
        self.send(
            StepOutput(
                request_ids=output.request[kept].tobytes(),
                token_ids=output.token[kept].tobytes(),
                finish_reasons=output.finish[kept].tobytes(),
                cached_tokens=output.cached_tokens[kept].tobytes(),
                stats=self._reported,
                logprobs=result.logprobs(output.row[kept]),
            )
        )
        if some_failed:
            for request_id in output.request[output.finish == FinishReason.FAILED].tolist():
                self.send_failed(request_id, NO_TOKEN)

    def send_failed(self, request_id: int, sentence: str) -> None:
        self.send(RequestFailed(request_id, sentence))

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
    floor = FloorReport(*_FLOOR(scheduler.floor()))
    return Stats(*(*_STATS(scheduler.stats()), floor))
