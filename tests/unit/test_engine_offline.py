# SPDX-License-Identifier: MIT
"""The offline engine serves again after whatever has ended a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from engine_cases import MAX_MODEL_LEN, EngineCase, make_case

from dynamo_tokenspeed.engine.offline import OfflineEngine

NEW_TOKENS = 8
BIASED = {"logit_bias": {7: 100.0}}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> EngineCase:
    return make_case(0, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(params=[False, True], ids=["in_turn", "overlap"])
def engine(request: pytest.FixtureRequest, case: EngineCase) -> OfflineEngine:
    return case.engine(overlap_schedule=request.param)


def tokens(engine: OfflineEngine, case: EngineCase) -> list[list[int]]:
    return [completion.token_ids for completion in engine.generate(case.prompts, NEW_TOKENS)]


@pytest.fixture(scope="module")
def answers(case: EngineCase) -> list[list[int]]:
    return tokens(case.engine(), case)


def expect_as_new(engine: OfflineEngine, case: EngineCase, answers: list[list[int]]) -> None:
    stats = engine.scheduler.stats()
    assert (stats.waiting, stats.running, stats.pages_used) == (0, 0, 0)
    assert tokens(engine, case) == answers
    engine.scheduler.check_invariants()


@pytest.mark.parametrize("refused", [0, 1, 3])
def test_when_one_request_is_refused_none_has_run(
    engine: OfflineEngine, case: EngineCase, answers: list[list[int]], refused: int
) -> None:
    prompts = [[1], [2, 3], [4, 5, 6]]
    prompts.insert(refused, [9] * (MAX_MODEL_LEN + 1))

    with pytest.raises(ValueError, match="prompt has 161 tokens"):
        engine.generate(prompts, NEW_TOKENS, **BIASED)

    assert engine.scheduler.stats().steps == 0
    expect_as_new(engine, case, answers)


def test_requests_of_one_id_are_refused_together(
    engine: OfflineEngine, case: EngineCase, answers: list[list[int]]
) -> None:
    request = engine.request([1, 2], NEW_TOKENS)

    with pytest.raises(ValueError, match="ids must be unique"):
        engine.run([request, request])

    expect_as_new(engine, case, answers)


def test_a_prompt_that_cannot_be_read_leaves_nothing_behind(
    engine: OfflineEngine, case: EngineCase, answers: list[list[int]]
) -> None:
    def prompts() -> Iterator[list[int]]:
        yield [1, 2, 3]
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"):
        engine.generate(prompts(), NEW_TOKENS)

    expect_as_new(engine, case, answers)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, RuntimeError])
@pytest.mark.parametrize("at_step", [1, 2, 5])
def test_whatever_breaks_a_step_the_engine_serves_again(
    engine: OfflineEngine,
    case: EngineCase,
    answers: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    stop: type[BaseException],
    at_step: int,
) -> None:
    model = engine._engine.executor.model
    forward, steps = model.forward, 0

    def interrupted(batch, pool) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps >= at_step:
            raise stop("now")
        return forward(batch, pool)

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", interrupted)
        with pytest.raises(stop):
            engine.generate(case.prompts, NEW_TOKENS, **BIASED)

    expect_as_new(engine, case, answers)
