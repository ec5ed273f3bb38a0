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
from dynamo_tokenspeed.engine.executor import Executor
from dynamo_tokenspeed.engine.inbox import submit
from dynamo_tokenspeed.engine.launched_step import StepResult
from dynamo_tokenspeed.engine.outbox import NO_TOKEN
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
    """What one request produced. `error`: the sentence of one that FAILED."""

    token_ids: list[int] = dataclasses.field(default_factory=list)
    finish_reason: FinishReason = FinishReason.NONE
    cached_tokens: int = 0
    logprobs: list[TokenLogprobs] = dataclasses.field(default_factory=list)
    error: str = ""


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
        """Run these requests; ValueError, and none has run, when the scheduler refuses one."""
        self._submit(submits)
        outbox = _Collector(submits)
        try:
            step_loop.run(
                self.scheduler,
                self._engine.executor,
                _UntilIdle(self._engine.executor),
                outbox,
                None,
            )
        except BaseException:  # Ctrl-C in a notebook, too
            self._start_afresh(submits)
            raise
        return list(outbox.completions.values())

    def _submit(self, submits: Sequence[Submit]) -> None:
        for index, request in enumerate(submits):
            try:
                submit(self.scheduler, request)
            except Exception:
                for earlier in submits[:index]:
                    self.scheduler.abort(earlier.request_id)
                raise
        for request in submits:
            self._engine.executor.constraints.remember(request)

    def _start_afresh(self, submits: Sequence[Submit]) -> None:
        """Nobody knows how far the steps in flight have come, nor what is in their pages.

        A new scheduler holds no page, and its steps run behind all that the old one began.
        """
        self._engine.executor.come_to_rest()
        fresh = ts_scheduler.Scheduler(self.scheduler.config)
        self._engine = self._engine._replace(scheduler=fresh)
        for request in submits:
            self._engine.executor.constraints.forget(request.request_id)


class _UntilIdle:
    """Stands where the inbox does: brings nothing, and ends the loop when nothing is left to do."""

    def __init__(self, executor: Executor) -> None:
        self._transfers = executor.transfers

    def apply(self, scheduler: ts_scheduler.Scheduler, wait: bool) -> bool:
        stats = scheduler.stats()
        alive = stats.waiting + stats.running > 0
        if wait and alive and self._transfers is not None:
            self._transfers.wait()
        return alive or not wait


class _Collector:
    """Stands where the outbox does: keeps every stream's tokens."""

    def __init__(self, submits: Sequence[Submit]) -> None:
        self.completions = {s.request_id: Completion() for s in submits}

    def send_admitted(self, plan: ts_scheduler.Plan) -> None:
        pass

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
            completions.append(completion)
            if finish == FinishReason.FAILED:
                self.send_failed(request_id, NO_TOKEN)
                continue
            completion.token_ids.append(token)
            completion.finish_reason = FinishReason(finish)
            completion.cached_tokens = cached_tokens
        for logprobs in result.logprobs(output.row):
            if completions[logprobs.index].finish_reason != FinishReason.FAILED:
                completions[logprobs.index].logprobs.append(logprobs)

    def send_failed(self, request_id: int, sentence: str) -> None:
        completion = self.completions[request_id]
        completion.finish_reason, completion.error = FinishReason.FAILED, sentence

    def send_stats(self, scheduler: ts_scheduler.Scheduler) -> None:
        pass
