# SPDX-License-Identifier: MIT
"""The vocabulary is what the tokenizer knows: padding and holes are in nobody's answer."""

from __future__ import annotations

import numpy as np
import pytest
from engine_cases import VOCAB_SIZE, EngineCase, make_case

from dynamo_tokenspeed.engine.offline import Completion, OfflineEngine
from dynamo_tokenspeed.protocol import SamplingParams

KNOWN = 200  # of 384 logits
HOLES = [0, 3, *range(50, 150)]
SAMPLING = {
    "greedy": SamplingParams(logprobs=5),
    "drawn": SamplingParams(seed=1, temperature=2.0, logprobs=5),
    "truncated": SamplingParams(seed=2, temperature=1.5, top_k=50, top_p=0.95, min_p=0.01),
    "penalised": SamplingParams(seed=3, temperature=1.0, repetition_penalty=1.3, logprobs=20),
}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> EngineCase:
    return make_case(2, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def engine(case: EngineCase) -> OfflineEngine:
    return case.engine(num_token_ids=KNOWN, unknown_token_ids=[*HOLES, 300])


@pytest.fixture(scope="module")
def free(case: EngineCase) -> OfflineEngine:
    return case.engine()


def answers(engine: OfflineEngine, sampling: SamplingParams, **request) -> list[Completion]:
    prompts = [[11, 42, 7, 199, 12], [5] * 20, [*range(150, 180)]]
    return engine.generate(prompts, 24, sampling, **request)


def named(completions: list[Completion]) -> set[int]:
    """Every id that the answers name, alternatives included."""
    chosen = {token for completion in completions for token in completion.token_ids}
    records = [record for completion in completions for record in completion.logprobs]
    return chosen | {token for record in records for token in record.top_ids}


@pytest.mark.parametrize("sampling", SAMPLING.values(), ids=SAMPLING)
def test_an_answer_names_no_id_without_a_text(
    engine: OfflineEngine, free: OfflineEngine, sampling: SamplingParams
) -> None:
    unknown = {*HOLES, *range(KNOWN, VOCAB_SIZE)}
    assert named(answers(free, sampling)) & unknown  # the model would choose some

    assert not named(answers(engine, sampling)) & unknown


def test_stops_and_min_tokens_hold_among_what_is_left(engine: OfflineEngine) -> None:
    sampling = SamplingParams(seed=1, temperature=2.0)
    stops = [*range(150, KNOWN)]

    completions = answers(engine, sampling, stop_token_ids=stops, min_tokens=8)

    for completion in completions:
        assert not {*completion.token_ids[:8]} & {*stops}
        assert not {*completion.token_ids} & {*HOLES}


def test_log_probabilities_are_of_the_tokens_that_are_left(engine: OfflineEngine) -> None:
    [completion] = engine.generate([[11, 42]], 1, SamplingParams(logprobs=20))
    [record] = completion.logprobs

    assert np.exp(record.top_logprobs).sum() < 1.0001
    assert record.top_logprobs[0] == record.logprob


def test_a_prompt_has_none_either(case: EngineCase) -> None:
    engine = case.engine(num_token_ids=KNOWN)
    assert engine.vocab_size == KNOWN
    with pytest.raises(ValueError, match=str(KNOWN)):
        engine.generate([[1, KNOWN]], 1)


def test_a_table_larger_than_the_model_changes_nothing(
    case: EngineCase, free: OfflineEngine
) -> None:
    larger = case.engine(num_token_ids=VOCAB_SIZE + 9, unknown_token_ids=[VOCAB_SIZE + 1])

    assert larger.vocab_size == VOCAB_SIZE
    greedy = SAMPLING["greedy"]
    assert [a.token_ids for a in answers(larger, greedy)] == [
        a.token_ids for a in answers(free, greedy)
    ]
