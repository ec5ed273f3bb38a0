# SPDX-License-Identifier: MIT
"""The engine says what `transformers` says, however its work is cut, cached or interrupted.

fp32, because two tokens of a random model may be nearly as likely: bf16 would decide by
rounding. tests/unit/test_model_* compare the logits in bf16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from engine_cases import VOCAB_SIZE, EngineCase, make_case
from greedy_oracle import GreedyOracle

from dynamo_tokenspeed.engine.offline import Completion
from dynamo_tokenspeed.protocol import SamplingParams

NUM_CASES = 20
NEW_TOKENS = 12


class Reference(NamedTuple):
    """A case and what `transformers` generates for each of its prompts."""

    case: EngineCase
    answers: list[list[int]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower on two threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=range(NUM_CASES), ids="geometry{}".format)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    case = make_case(request.param, tmp_path_factory.mktemp("checkpoint"))
    drafts = tokens(case.engine().generate(case.prompts, NEW_TOKENS))
    return Reference(case, GreedyOracle(case.checkpoint).generate(case.prompts, drafts))


def tokens(completions: list[Completion]) -> list[list[int]]:
    return [completion.token_ids for completion in completions]


def test_batches_of_one_to_eight_requests(reference: Reference) -> None:
    case, answers = reference
    engine = case.engine(enable_prefix_caching=False)

    for batch in range(1, 9):
        assert tokens(engine.generate(case.prompts[:batch], NEW_TOKENS)) == answers[:batch]


@pytest.mark.parametrize("chunk", [1, 3, 16, 128])
def test_chunks_of_any_size(reference: Reference, chunk: int) -> None:
    case, answers = reference
    engine = case.engine(chunked_prefill_size=chunk, max_num_batched_tokens=max(8, chunk))

    assert tokens(engine.generate(case.prompts, NEW_TOKENS)) == answers


def test_requests_that_wait_for_a_slot_while_others_decode(reference: Reference) -> None:
    case, answers = reference
    engine = case.engine(max_num_seqs=3)

    assert tokens(engine.generate(case.prompts, NEW_TOKENS)) == answers


def test_a_warm_prefix_cache(reference: Reference) -> None:
    case, answers = reference
    engine = case.engine()
    cold = engine.generate(case.prompts, NEW_TOKENS)

    warm = engine.generate(case.prompts, NEW_TOKENS)

    assert tokens(cold) == answers
    assert tokens(warm) == answers
    # Every full page, except that the last token is always computed.
    assert [completion.cached_tokens for completion in warm] == [
        (len(prompt) - 1) // case.page_size * case.page_size for prompt in case.prompts
    ]


def test_a_conversation_that_continues_its_own_answer(reference: Reference) -> None:
    case, answers = reference
    engine = case.engine()
    engine.generate(case.prompts, NEW_TOKENS)
    half = NEW_TOKENS // 2

    second_turn = engine.generate(
        [prompt + answer[:half] for prompt, answer in zip(case.prompts, answers, strict=True)],
        NEW_TOKENS - half,
    )

    assert tokens(second_turn) == [answer[half:] for answer in answers]


def test_after_eviction(reference: Reference) -> None:
    case, answers = reference
    longest = max(map(len, case.prompts)) + NEW_TOKENS
    engine = case.engine(max_model_len=longest, num_pages=case.pages(longest), max_num_seqs=1)

    for _ in range(2):  # in a pool that holds one of them, each prompt evicts another
        assert tokens(engine.generate(case.prompts, NEW_TOKENS)) == answers
    stats = engine.scheduler.stats()
    assert stats.pages_used == 0
    assert stats.prefix_hit_tokens < stats.prefix_query_tokens / 2


@pytest.mark.parametrize("prefix_caching", [True, False], ids=["cached", "uncached"])
def test_retracted_and_resumed(reference: Reference, prefix_caching: bool) -> None:
    case, answers = reference
    prompts, rests = [], []
    for prompt, answer in zip(case.prompts, answers, strict=True):
        known = -len(prompt) % case.page_size  # tokens of the answer up to the end of a page
        if known + 1 < NEW_TOKENS:
            prompts.append(prompt + answer[:known])
            rests.append(answer[known:])
    engine = case.engine(
        enable_prefix_caching=prefix_caching, **case.too_few_pages(prompts, NEW_TOKENS)
    )

    completions = engine.run(
        [engine.request(prompt, len(rest)) for prompt, rest in zip(prompts, rests, strict=True)]
    )

    assert tokens(completions) == rests
    assert engine.scheduler.stats().retractions > 0
    assert engine.scheduler.stats().pages_used == 0


def test_a_pool_too_small_for_all_answers_retracts(tmp_path) -> None:
    case = make_case(0, tmp_path)
    prompts = [[token] * case.page_size for token in range(1, 7)]
    alone = [tokens(case.engine().generate([prompt], 40))[0] for prompt in prompts]
    engine = case.engine(max_model_len=60, num_pages=case.pages(60) + 6)

    together = engine.generate(prompts, 40)

    assert tokens(together) == alone
    assert engine.scheduler.stats().retractions > 0


def test_a_seed_draws_the_same_tokens_whatever_runs_beside_it(tmp_path) -> None:
    case = make_case(1, tmp_path)
    sampling = SamplingParams(seed=7, temperature=1.2, top_p=0.95, top_k=50)
    prompt, others = case.prompts[0], case.prompts[1:]
    engine = case.engine(enable_prefix_caching=False)
    [alone] = engine.generate([prompt], 20, sampling)

    beside, *_ = engine.generate([prompt, *others], 20, sampling)
    last = engine.generate([*others, prompt], 20, sampling)[-1]

    assert beside.token_ids == alone.token_ids
    assert last.token_ids == alone.token_ids


def test_a_seed_draws_the_same_tokens_after_a_retraction(tmp_path) -> None:
    case = make_case(0, tmp_path)
    sampling = SamplingParams(seed=3, temperature=1.0, repetition_penalty=1.3)
    prompts = [[token] * case.page_size for token in range(1, 7)]
    alone = [tokens(case.engine().generate([prompt], 40, sampling))[0] for prompt in prompts]
    engine = case.engine(max_model_len=60, num_pages=case.pages(60) + 6)

    together = engine.generate(prompts, 40, sampling)

    assert tokens(together) == alone
    assert engine.scheduler.stats().retractions > 0


def test_different_seeds_draw_different_tokens(tmp_path) -> None:
    case = make_case(1, tmp_path)
    engine = case.engine()

    answers = {
        tuple(engine.generate([[5]], 20, SamplingParams(seed=seed, temperature=1.0))[0].token_ids)
        for seed in range(4)
    }

    assert len(answers) == 4
    assert all(0 <= token < VOCAB_SIZE for answer in answers for token in answer)
