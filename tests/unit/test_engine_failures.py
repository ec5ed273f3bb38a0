# SPDX-License-Identifier: MIT
"""A request that cannot be computed ends with an error, and nobody else notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_cases import VOCAB_SIZE, EngineCase, make_case

from dynamo_tokenspeed.engine.offline import OfflineEngine
from dynamo_tokenspeed.protocol import FinishReason, SamplingParams

NEW_TOKENS = 12
POISON = 383  # a token that no prompt of the case has
EVERY_TOKEN = {"min_tokens": 1, "stop_token_ids": [*range(VOCAB_SIZE)]}
WAYS = [
    pytest.param(SamplingParams(logprobs=2), id="greedy"),
    pytest.param(SamplingParams(seed=4, temperature=1.0, logprobs=0), id="drawing"),
    pytest.param(SamplingParams(seed=4, temperature=1.0, top_p=0.9, top_k=20), id="top_p"),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> EngineCase:
    case = make_case(6, tmp_path_factory.mktemp("checkpoint"))
    assert all(POISON not in prompt for prompt in case.prompts)
    return case


@pytest.fixture(params=[False, True], ids=["in_turn", "overlap"])
def engine(request: pytest.FixtureRequest, case: EngineCase) -> OfflineEngine:
    return case.engine(overlap_schedule=request.param)


def spoil_forward(engine: OfflineEngine, spoil: Callable[..., Any]) -> None:
    """`spoil(batch, logits)` stands behind the model's forward pass, and `batch` before it."""
    model = engine._engine.executor.model
    forward = model.forward

    def spoilt(batch: Any, pool: Any) -> torch.Tensor:
        logits = forward(batch, pool)
        spoil(batch, logits)
        return logits

    model.forward = spoilt  # type: ignore[method-assign]


def raise_at_poison(batch: Any, logits: torch.Tensor) -> None:
    if (batch.token_ids == POISON).any():
        raise RuntimeError("the kernel does not like this token")


def nan_at_poison(batch: Any, logits: torch.Tensor) -> None:
    logits[batch.token_ids[batch.sample_index] == POISON] = torch.nan


def expect_only_the_poisoned_to_fail(
    engine: OfflineEngine, case: EngineCase, poisoned: Any, sampling: SamplingParams
) -> str:
    """The sentence that it ends with."""
    never = {POISON: -1e9}
    others = [
        engine.request(prompt, NEW_TOKENS, sampling, logit_bias=never) for prompt in case.prompts
    ]
    alone = [completion.token_ids for completion in case.engine().run(others)]

    first, failed, *rest = engine.run([others[0], poisoned, *others[1:]])

    assert [completion.token_ids for completion in (first, *rest)] == alone
    assert (failed.finish_reason, failed.token_ids) == (FinishReason.FAILED, [])
    assert failed.error
    engine.scheduler.check_invariants()
    assert engine.scheduler.stats().pages_used == 0
    return failed.error


@pytest.mark.parametrize("sampling", WAYS)
def test_a_request_that_bans_every_token_fails_alone(
    engine: OfflineEngine, case: EngineCase, sampling: SamplingParams
) -> None:
    poisoned = engine.request([5, 6, 7], NEW_TOKENS, sampling, **EVERY_TOKEN)

    sentence = expect_only_the_poisoned_to_fail(engine, case, poisoned, sampling)

    assert "banned" in sentence


@pytest.mark.parametrize("sampling", WAYS)
def test_a_request_whose_logits_are_nan_fails_alone(
    engine: OfflineEngine, case: EngineCase, sampling: SamplingParams
) -> None:
    spoil_forward(engine, nan_at_poison)
    poisoned = engine.request([5, 6, POISON], NEW_TOKENS, sampling)

    sentence = expect_only_the_poisoned_to_fail(engine, case, poisoned, sampling)

    assert "not finite" in sentence


@pytest.mark.parametrize("at", [0, 60, 99], ids=["first_chunk", "later_chunk", "last_token"])
def test_a_request_that_breaks_its_step_fails_alone(
    engine: OfflineEngine, case: EngineCase, at: int
) -> None:
    spoil_forward(engine, raise_at_poison)
    prompt = [3] * 100
    prompt[at] = POISON
    poisoned = engine.request(prompt, NEW_TOKENS)

    sentence = expect_only_the_poisoned_to_fail(engine, case, poisoned, WAYS[0].values[0])

    assert "RuntimeError: the kernel does not like this token" in sentence


def test_two_requests_that_break_the_same_step_fail_and_no_other(
    engine: OfflineEngine, case: EngineCase
) -> None:
    spoil_forward(engine, raise_at_poison)
    prompts = [[POISON], [1, 2, 3], [4, POISON], [7, 7]]

    ends = [completion.finish_reason for completion in engine.generate(prompts, 5)]

    assert ends == [
        FinishReason.FAILED,
        FinishReason.LENGTH,
        FinishReason.FAILED,
        FinishReason.LENGTH,
    ]


def test_a_step_that_only_fails_as_a_whole_fails_nobody(
    engine: OfflineEngine, case: EngineCase
) -> None:
    """Too little memory for all rows at once, say."""
    wanted = [completion.token_ids for completion in engine.generate(case.prompts, NEW_TOKENS)]
    steps = 0

    def too_large(batch: Any, logits: torch.Tensor) -> None:
        nonlocal steps
        if len(batch.sample_index) > 1:
            steps += 1
            raise MemoryError("out of memory")

    spoil_forward(engine, too_large)

    sampling = SamplingParams(logprobs=1)
    completions = engine.generate(case.prompts, NEW_TOKENS, sampling)

    assert [completion.token_ids for completion in completions] == wanted
    assert [len(completion.logprobs) for completion in completions] == [NEW_TOKENS] * 8
    assert steps > 0


def test_a_request_that_fails_while_it_decodes_keeps_its_tokens(
    engine: OfflineEngine, case: EngineCase
) -> None:
    [whole] = engine.generate([[9, 8, 7]], NEW_TOKENS)
    later = whole.token_ids[5]
    first = whole.token_ids.index(later)

    def nan_behind(batch: Any, logits: torch.Tensor) -> None:
        logits[batch.token_ids[batch.sample_index] == later] = torch.nan

    spoil_forward(engine, nan_behind)

    [failed] = engine.generate([[9, 8, 7]], NEW_TOKENS)

    assert failed.finish_reason == FinishReason.FAILED
    assert failed.token_ids == whole.token_ids[: first + 1]


def test_what_is_no_request_s_fault_ends_the_engine(
    engine: OfflineEngine, case: EngineCase
) -> None:
    def break_every(batch: Any, logits: torch.Tensor) -> None:
        raise RuntimeError("the device is gone")

    spoil_forward(engine, break_every)

    with pytest.raises(RuntimeError, match="the device is gone"):
        engine.generate([[1, 2, 3]], 5)


def test_nobody_finds_what_a_failed_request_computed(
    engine: OfflineEngine, case: EngineCase
) -> None:
    spoil_forward(engine, nan_at_poison)
    prompt = [7] * (4 * case.chunk) + [POISON]  # its first chunks are cached before it fails

    [first], [second] = engine.generate([prompt], 1), engine.generate([prompt[:-1]], 1)

    assert first.finish_reason == FinishReason.FAILED
    assert (second.finish_reason, second.cached_tokens) == (FinishReason.LENGTH, 0)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_nan_in_the_kv_cache_stays_with_its_request(
    case: EngineCase, engine: OfflineEngine, backend: str
) -> None:
    """Whoever runs beside it, and whoever gets its pages next, computes what it would alone."""
    overlap = bool(engine.scheduler.config.overlap_depth)
    longest = max(map(len, case.prompts)) + NEW_TOKENS
    engine = case.engine(
        overlap_schedule=overlap,
        attention_backend=backend,
        moe_backend=backend,
        max_model_len=longest,
        num_pages=case.pages(longest) + 2,  # nobody waits long for used ones
    )
    alone = [completion.token_ids for completion in engine.generate(case.prompts, NEW_TOKENS)]
    engine._engine.executor.model.embedding[POISON] = torch.nan
    prompts = []  # each behind a poisoned one
    for prompt in case.prompts:
        middle = len(prompt) // 2
        prompts += [[*prompt[:middle], POISON, *prompt[middle:]], prompt]

    for _ in range(2):
        completions = engine.generate(prompts, NEW_TOKENS)

        assert {completion.finish_reason for completion in completions[::2]} == {
            FinishReason.FAILED
        }
        assert [completion.token_ids for completion in completions[1::2]] == alone
    assert engine.scheduler.stats().pages_used == 0
