# SPDX-License-Identifier: MIT
"""What a request may ask of the engine: stops, limits, biases, log-probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from engine_cases import MAX_MODEL_LEN, VOCAB_SIZE, EngineCase, make_case
from oracle import Oracle

from dynamo_tokenspeed.engine.offline import Completion, OfflineEngine
from dynamo_tokenspeed.protocol import FinishReason, SamplingParams, Submit

PROMPT = [11, 42, 7, 300, 12]
NEW_TOKENS = 16


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> EngineCase:
    return make_case(2, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def engine(case: EngineCase) -> OfflineEngine:
    return case.engine()


@pytest.fixture(scope="module")
def answer(engine: OfflineEngine) -> list[int]:
    """The greedy answer that nothing stops."""
    return greedy(engine).token_ids


@pytest.fixture(scope="module")
def stop(answer: list[int]) -> int:
    """A token that the greedy answer reaches, though not at once."""
    return next(token for token in answer if token != answer[0])


def greedy(engine: OfflineEngine, max_tokens: int = NEW_TOKENS, **request) -> Completion:
    [completion] = engine.generate([PROMPT], max_tokens, **request)
    return completion


def up_to(answer: list[int], token: int) -> list[int]:
    return answer[: answer.index(token) + 1]


def test_max_tokens_ends_with_length(engine: OfflineEngine, answer: list[int]) -> None:
    completion = greedy(engine, 3)

    assert completion.token_ids == answer[:3]
    assert completion.finish_reason == FinishReason.LENGTH


def test_the_context_limit_ends_with_length(engine: OfflineEngine) -> None:
    [completion] = engine.generate([[9] * (MAX_MODEL_LEN - 2)], 50)

    assert len(completion.token_ids) == 2
    assert completion.finish_reason == FinishReason.LENGTH


@pytest.mark.parametrize("kind", ["eos_token_ids", "stop_token_ids"])
def test_a_stop_token_ends_the_answer_and_is_its_last_token(
    engine: OfflineEngine, answer: list[int], stop: int, kind: str
) -> None:
    completion = greedy(engine, **{kind: [stop, 1]})

    assert completion.token_ids == up_to(answer, stop)
    assert completion.finish_reason == FinishReason.STOP


def test_ignore_eos_ignores_eos(engine: OfflineEngine, answer: list[int], stop: int) -> None:
    completion = greedy(engine, eos_token_ids=[stop], ignore_eos=True)

    assert completion.token_ids == answer
    assert completion.finish_reason == FinishReason.LENGTH


def test_ignore_eos_leaves_stop_tokens_alone(
    engine: OfflineEngine, answer: list[int], stop: int
) -> None:
    completion = greedy(engine, stop_token_ids=[stop], eos_token_ids=[stop], ignore_eos=True)

    assert completion.token_ids == up_to(answer, stop)


def test_min_tokens_bans_stops_until_then(
    engine: OfflineEngine, answer: list[int], stop: int
) -> None:
    position = answer.index(stop)

    completion = greedy(engine, eos_token_ids=[stop], min_tokens=position + 1)

    assert completion.token_ids[:position] == answer[:position]
    assert completion.token_ids[position] != stop
    assert len(completion.token_ids) > position + 1


def test_min_tokens_reached_lets_the_stop_through(
    engine: OfflineEngine, answer: list[int], stop: int
) -> None:
    completion = greedy(engine, eos_token_ids=[stop], min_tokens=answer.index(stop))

    assert completion.token_ids == up_to(answer, stop)


def test_logit_bias_forces_a_token(engine: OfflineEngine) -> None:
    assert greedy(engine, 4, logit_bias={77: 100.0}).token_ids == [77] * 4


def test_logit_bias_bans_a_token(engine: OfflineEngine, answer: list[int]) -> None:
    assert answer[0] not in greedy(engine, logit_bias={answer[0]: -100.0}).token_ids


def test_a_bias_ends_with_its_request(engine: OfflineEngine, answer: list[int]) -> None:
    greedy(engine, 4, logit_bias={77: 100.0})

    assert greedy(engine).token_ids == answer


def test_a_bias_leaves_the_requests_beside_it_alone(
    engine: OfflineEngine, answer: list[int]
) -> None:
    plain = submit(1_000, PROMPT)
    biased = submit(1_001, PROMPT, logit_bias={77: 100.0}, min_tokens=3, eos_token_ids=[77])

    first, second = engine.run([plain, biased])

    assert first.token_ids == answer
    assert second.token_ids[3] == 77


def test_logprobs_are_those_of_transformers(engine: OfflineEngine, case: EngineCase) -> None:
    completion = greedy(engine, sampling=SamplingParams(logprobs=5))
    text = PROMPT + completion.token_ids
    logits = Oracle(case.checkpoint).logits(text)[len(PROMPT) - 1 : -1]
    best = logits.log_softmax(-1).topk(5)

    assert [record.top_ids for record in completion.logprobs] == best.indices.tolist()
    np.testing.assert_allclose(
        [record.top_logprobs for record in completion.logprobs], best.values.numpy(), atol=1e-4
    )
    assert [record.logprob for record in completion.logprobs] == [
        record.top_logprobs[0] for record in completion.logprobs
    ]


def test_logprobs_of_a_banned_token_stay_finite(engine: OfflineEngine) -> None:
    completion = greedy(
        engine, 4, logit_bias={5: -math.inf}, sampling=SamplingParams(logprobs=VOCAB_SIZE)
    )

    assert 5 not in completion.token_ids
    for record in completion.logprobs:
        assert len(record.top_logprobs) == VOCAB_SIZE
        assert all(math.isfinite(value) for value in record.top_logprobs)


def test_only_requests_that_ask_get_logprobs(engine: OfflineEngine) -> None:
    silent, asking = engine.run(
        [submit(2_000, PROMPT), submit(2_001, PROMPT, sampling=SamplingParams(logprobs=0))]
    )

    assert silent.logprobs == []
    assert len(asking.logprobs) == NEW_TOKENS
    assert all(record.top_ids == [] for record in asking.logprobs)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"token_ids": b""}, "prompt"),
        ({"token_ids": np.full(MAX_MODEL_LEN, 1, np.int32).tobytes()}, str(MAX_MODEL_LEN)),
        ({"token_ids": np.array([VOCAB_SIZE], np.int32).tobytes()}, str(VOCAB_SIZE)),
        ({"max_tokens": 0}, "max_tokens"),
    ],
    ids=["empty prompt", "no room to answer", "token outside the vocabulary", "max_tokens 0"],
)
def test_what_cannot_run_is_refused_in_a_sentence(
    engine: OfflineEngine, answer: list[int], change: dict, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        engine.run([submit(3_000, PROMPT, **change)])

    assert greedy(engine).token_ids == answer  # unharmed


def submit(request_id: int, prompt: list[int], **fields) -> Submit:
    request = {
        "token_ids": np.array(prompt, np.int32).tobytes(),
        "max_tokens": NEW_TOKENS,
        "request_id": request_id,
    }
    return Submit(**request | fields)
