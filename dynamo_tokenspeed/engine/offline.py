# SPDX-License-Identifier: MIT
"""The engine without a worker: prompts in, tokens out, in this process.

The same step loop, scheduler and executor as in the engine process; only the two
ends of the sockets are replaced. Benchmarks and the model tests use it.

    engine = OfflineEngine(EngineConfig(model="recipes/tiny-kimi"))
    [completion] = engine.generate([[1, 2, 3]], max_tokens=16)
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import ts_scheduler

from dynamo_tokenspeed.engine import startup, step_loop
from dynamo_tokenspeed.engine.inbox import submit
from dynamo_tokenspeed.engine.launched_step import StepResult
from dynamo_tokenspeed.protocol import (
    EngineConfig,
    FinishReason,
    SamplingParams,
    Submit,
    TokenLogprobs,
)

GREEDY = SamplingParams()


@dataclasses.dataclass
class Completion:
    """What one request produced."""

    token_ids: list[int] = dataclasses.field(default_factory=list)
    finish_reason: FinishReason = FinishReason.NONE
    cached_tokens: int = 0
    logprobs: list[TokenLogprobs] = dataclasses.field(default_factory=list)


class OfflineEngine:
    def __init__(self, config: EngineConfig) -> None:
        self._engine = startup.build(config)
        self._next_id = itertools.count()

    @property
    def scheduler(self) -> ts_scheduler.Scheduler:
        return self._engine.scheduler

    @property
    def vocab_size(self) -> int:
        return self._engine.capacity.vocab_size

    def generate(
        self,
        prompts: Iterable[Sequence[int]],
        max_tokens: int = 16,
        sampling: SamplingParams = GREEDY,
        **request: Any,
    ) -> list[Completion]:
        """Run all prompts together until each has ended; `request`: further fields of `Submit`."""
        return self.run(
            [self.request(prompt, max_tokens, sampling, **request) for prompt in prompts]
        )

    def request(
        self,
        prompt: Sequence[int],
        max_tokens: int = 16,
        sampling: SamplingParams = GREEDY,
        **fields: Any,
    ) -> Submit:
        """One request for `run`; `fields`: further fields of `Submit`."""
        return Submit(
            request_id=next(self._next_id),
            token_ids=np.asarray(prompt, np.int32).tobytes(),
            max_tokens=max_tokens,
            sampling=sampling,
            **fields,
        )

    def run(self, submits: Sequence[Submit]) -> list[Completion]:
        """Run these requests; ValueError when the scheduler refuses one."""
        inbox, outbox = _Submits(submits, self._engine), _Collector(submits)
        step_loop.run(self._engine.scheduler, self._engine.executor, inbox, outbox, None)
        return list(outbox.completions.values())


class _Submits:
    """Stands where the inbox does: hands over all requests, then ends the loop when idle."""

    def __init__(self, submits: Sequence[Submit], engine: startup.Engine) -> None:
        self._pending = list(submits)
        self._constraints = engine.executor.constraints

    def apply(self, scheduler: ts_scheduler.Scheduler, wait: bool) -> bool:
        if wait and not self._pending:
            return False
        for request in self._pending:
            submit(scheduler, request)
            self._constraints.remember(request)
        self._pending.clear()
        return True


class _Collector:
    """Stands where the outbox does: keeps every stream's tokens."""

    def __init__(self, submits: Sequence[Submit]) -> None:
        self.completions = {s.request_id: Completion() for s in submits}

    def send_step(
        self, output: ts_scheduler.Output, result: StepResult, scheduler: ts_scheduler.Scheduler
    ) -> None:
        entries = zip(
            output.request.tolist(),
            output.token.tolist(),
            output.finish.tolist(),
            output.cached_tokens.tolist(),
            strict=True,
        )
        completions = []
        for request_id, token, finish, cached_tokens in entries:
            completion = self.completions[request_id]
            completion.token_ids.append(token)
            completion.finish_reason = FinishReason(finish)
            completion.cached_tokens = cached_tokens
            completions.append(completion)
        for logprobs in result.logprobs(output.row):
            completions[logprobs.index].logprobs.append(logprobs)

    def send_stats(self, scheduler: ts_scheduler.Scheduler) -> None:
        pass
