# SPDX-License-Identifier: MIT
"""With overlap a step is launched before the tokens of the one before it are read; the tokens are
the same."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import ts_scheduler
from engine_cases import EngineCase, make_case

from dynamo_tokenspeed.engine import startup, step_loop
from dynamo_tokenspeed.engine.inbox import submit
from dynamo_tokenspeed.engine.offline import Completion
from dynamo_tokenspeed.protocol import FinishReason, SamplingParams, Submit

NEW_TOKENS = 24
DRAWING = SamplingParams(
    seed=11, temperature=1.1, top_p=0.9, presence_penalty=0.4, repetition_penalty=1.3, logprobs=2
)


class Said(NamedTuple):
    """All of a completion that must not depend on when its steps ran."""

    token_ids: list[int]
    finish_reason: FinishReason
    cached_tokens: int
    top_ids: list[list[int]]


def said(completion: Completion) -> Said:
    top_ids = [record.top_ids for record in completion.logprobs]
    return Said(completion.token_ids, completion.finish_reason, completion.cached_tokens, top_ids)


@pytest.fixture(scope="module", params=[0, 1, 2, 4], ids="geometry{}".format)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EngineCase:
    return make_case(request.param, tmp_path_factory.mktemp("checkpoint"))


def both(
    case: EngineCase,
    sampling: SamplingParams = DRAWING,
    *,
    retracts: bool = False,
    **config: Any,
) -> Callable[..., tuple[list[Said], list[Said]]]:
    """Generates twice, without overlap and with it, and reports `said` of each."""
    engines = [case.engine(overlap_schedule=overlap, **config) for overlap in (False, True)]

    def generate(prompts: list[list[int]], max_tokens: int = NEW_TOKENS, **request: Any):
        off, on = (
            [said(c) for c in engine.generate(prompts, max_tokens, sampling, **request)]
            for engine in engines
        )
        for engine in engines:
            engine.scheduler.check_invariants()
            assert engine.scheduler.stats().pages_used == 0
            assert engine.scheduler.stats().retractions > 0 or not retracts
        return off, on

    return generate


@pytest.mark.parametrize("sampling", [SamplingParams(), DRAWING], ids=["greedy", "drawing"])
@pytest.mark.parametrize("chunk", [1, 16, 128])
def test_chunks_of_any_size(case: EngineCase, sampling: SamplingParams, chunk: int) -> None:
    generate = both(
        case, sampling, chunked_prefill_size=chunk, max_num_batched_tokens=max(8, chunk)
    )

    off, on = generate(case.prompts)

    assert on == off


def test_requests_that_wait_for_a_slot(case: EngineCase) -> None:
    off, on = both(case, max_num_seqs=3)(case.prompts)

    assert on == off


def test_stops_that_nobody_foresees(case: EngineCase) -> None:
    off, on = both(case, max_num_seqs=4)(case.prompts, eos_token_ids=list(range(60)))

    assert on == off
    assert any(completion.finish_reason == FinishReason.STOP for completion in off)
    assert len({len(completion.token_ids) for completion in off}) > 1


def test_constraints_follow_their_request_from_slot_to_slot(case: EngineCase) -> None:
    generate = both(case, max_num_seqs=2)

    for request in ({"logit_bias": {7: 2.0}, "min_tokens": 5, "eos_token_ids": [*range(60)]}, {}):
        off, on = generate(case.prompts, **request)
        assert on == off


def test_a_warm_prefix_cache(case: EngineCase) -> None:
    generate = both(case)
    generate(case.prompts)

    off, on = generate(case.prompts)

    assert on == off  # what came from the cache, too


@pytest.mark.parametrize("prefix_caching", [True, False], ids=["cached", "uncached"])
def test_a_pool_too_small_for_all_answers(case: EngineCase, prefix_caching: bool) -> None:
    prompts = [prompt + [5] * (-len(prompt) % case.page_size) for prompt in case.prompts]
    generate = both(
        case,
        retracts=True,
        enable_prefix_caching=prefix_caching,
        **case.too_few_pages(prompts, NEW_TOKENS),
    )

    off, on = generate(prompts)

    assert [answer.token_ids for answer in on] == [answer.token_ids for answer in off]


def test_retractions_while_a_step_is_in_flight(tmp_path) -> None:
    case = make_case(0, tmp_path)
    prompts = [[token] * case.page_size for token in range(1, 7)]
    alone = [said(case.engine().generate([prompt], 40, DRAWING)[0]) for prompt in prompts]
    engine = case.engine(max_model_len=60, num_pages=case.pages(60) + 6, overlap_schedule=True)

    together = engine.generate(prompts, 40, DRAWING)

    assert [said(completion) for completion in together] == alone
    assert engine.scheduler.stats().retractions > 0


@pytest.mark.parametrize("turn", range(1, 12))
def test_an_abort_in_flight_silences_its_request_and_no_other(case: EngineCase, turn: int) -> None:
    alone = [c.token_ids for c in case.engine().generate(case.prompts, NEW_TOKENS)]
    engine = startup.build(case.config(overlap_schedule=True, max_num_seqs=4))
    aborted = {0, 3, 5}
    script = Script(case.prompts, {turn: aborted})
    streams = Streams(len(case.prompts), script)

    step_loop.run(engine.scheduler, engine.executor, script, streams, None)

    for index, (stream, answer) in enumerate(zip(streams.tokens, alone, strict=True)):
        assert stream == (answer[: len(stream)] if index in aborted else answer)
    engine.scheduler.check_invariants()
    assert engine.scheduler.stats().pages_used == 0


def test_a_step_is_launched_before_the_one_before_it_is_read(tmp_path) -> None:
    case = make_case(0, tmp_path)
    engine = startup.build(case.config(overlap_schedule=True))
    happened: list[str] = []

    def launch(plan: ts_scheduler.Plan):
        happened.append("launch")
        return engine.executor.launch(plan)

    executor = SimpleNamespace(
        launch=launch, constraints=engine.executor.constraints, transfers=None
    )
    script = Script([[1, 2, 3]], {}, max_tokens=3)
    streams = Streams(1, script, on_step=lambda: happened.append("read"))

    step_loop.run(engine.scheduler, executor, script, streams, None)

    assert happened == ["launch", "launch", "read", "launch", "read", "read"]


@pytest.mark.parametrize("overlap", [False, True])
def test_what_breaks_a_step_reaches_the_step_loop(tmp_path, overlap: bool) -> None:
    case = make_case(0, tmp_path)
    engine = startup.build(case.config(overlap_schedule=overlap))

    def forward(batch, pool):
        raise RuntimeError("the device is on fire")

    engine.executor.model.forward = forward

    script = Script([[1]], {})

    with pytest.raises(RuntimeError, match="on fire"):
        step_loop.run(engine.scheduler, engine.executor, script, Streams(1, script), None)


class Script:
    """An inbox: all prompts in the first turn, aborts in theirs, then the end."""

    def __init__(
        self, prompts: list[list[int]], aborts: dict[int, set[int]], max_tokens: int = NEW_TOKENS
    ) -> None:
        self._prompts = prompts
        self._aborts = aborts
        self._max_tokens = max_tokens
        self._turn = 0
        self.aborted: set[int] = set()

    def apply(self, scheduler: ts_scheduler.Scheduler, wait: bool) -> bool:
        if self._turn == 0:
            for request_id, prompt in enumerate(self._prompts):
                token_ids = np.array(prompt, np.int32).tobytes()
                submit(scheduler, Submit(request_id, token_ids, self._max_tokens))
        elif wait and self._turn > max(self._aborts, default=0):
            return False
        for request_id in self._aborts.get(self._turn, ()):
            scheduler.abort(request_id)
            self.aborted.add(request_id)
        self._turn += 1
        return True


class Streams:
    """An outbox: the tokens of each request; an aborted one must be silent."""

    def __init__(
        self, requests: int, script: Script, on_step: Callable[[], None] = lambda: None
    ) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(requests)]
        self._script = script
        self._on_step = on_step

    def send_admitted(self, plan) -> None:
        pass

    def send_step(self, output, result, scheduler) -> None:
        self._on_step()
        for request_id, token in zip(output.request.tolist(), output.token.tolist(), strict=True):
            assert request_id not in self._script.aborted
            self.tokens[request_id].append(token)

    def send_stats(self, scheduler) -> None:
        pass
