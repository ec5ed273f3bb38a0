# SPDX-License-Identifier: MIT
"""A request gets the same bits, tokens and log-probabilities, whatever schedule it met.

That is: what the prefix cache held, how its prompt was cut, who ran beside it, retraction, overlap,
the host tier, the number of threads. In bf16, where two ways to compute a thing round differently.

The oracle is an engine that serves one request at a time and remembers nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from engine_cases import VOCAB_SIZE, EngineCase, make_case
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo_tokenspeed.engine.offline import Completion, OfflineEngine
from dynamo_tokenspeed.protocol import EngineConfig, SamplingParams

NEW_TOKENS = 14
SEQUENCE = 100  # tokens, the longest


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=[0, 1, 4], ids="geometry{}".format)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EngineCase:
    return make_case(request.param, tmp_path_factory.mktemp("checkpoint"))


def bits(completion: Completion) -> tuple[Any, ...]:
    """All of an answer that a schedule could change."""
    records = [(r.logprob, r.top_ids, r.top_logprobs) for r in completion.logprobs]
    return completion.token_ids, completion.finish_reason, records


def sampling(seed: int) -> SamplingParams:
    return SamplingParams(seed=seed, temperature=1.0, logprobs=3)


@dataclass
class Oracle:
    """Answers to one request at a time, without a cache."""

    engine: OfflineEngine
    known: dict[tuple[int, ...], tuple[Any, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, case: EngineCase, absorb_from: int) -> Oracle:
        chunk = {"chunked_prefill_size": SEQUENCE, "max_num_batched_tokens": SEQUENCE}
        return cls(
            case.engine(
                dtype="bfloat16", enable_prefix_caching=False, absorb_from=absorb_from, **chunk
            )
        )

    def answer(self, prompt: list[int], seed: int) -> tuple[Any, ...]:
        key = (seed, *prompt)
        if key not in self.known:
            [completion] = self.engine.generate([prompt], NEW_TOKENS, sampling(seed))
            self.known[key] = bits(completion)
        return self.known[key]


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, Any]:
    """Everything about an engine that decides when and beside whom a token is computed."""
    chunk = draw(st.integers(1, 24))
    max_num_seqs = draw(st.integers(1, 6))
    tight = draw(st.booleans())
    return {
        "chunk": chunk,
        "budget": max_num_seqs + draw(st.integers(0, 40)),
        "max_num_seqs": max_num_seqs,
        "spare_pages": draw(st.integers(0, 6)) if tight else 400,
        "host_pages": draw(st.sampled_from([0, 300])),
        "overlap": draw(st.booleans()),
        "threads": draw(st.integers(1, 3)),
        "caching": draw(st.sampled_from([True, True, True, False])),
    }


def engine_for(case: EngineCase, schedule: dict[str, Any], absorb_from: int) -> OfflineEngine:
    chunk = min(schedule["chunk"], schedule["budget"])
    config = case.config(
        dtype="bfloat16",
        absorb_from=absorb_from,
        num_threads=schedule["threads"],
        max_model_len=SEQUENCE,
        num_pages=case.pages(SEQUENCE) + schedule["spare_pages"],
        max_num_seqs=schedule["max_num_seqs"],
        max_num_batched_tokens=schedule["budget"],
        chunked_prefill_size=chunk,
        overlap_schedule=schedule["overlap"],
        enable_prefix_caching=schedule["caching"],
        kv_offloading_bytes=schedule["host_pages"] * 60_000 if schedule["caching"] else 0,
    )
    return OfflineEngine(config)


# A prompt: how much of a common beginning it has, its own tokens, its seed.
PROMPTS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 20), st.integers(0, 3)), min_size=1, max_size=8
)
COMMON = [(7 * i + 3) % VOCAB_SIZE for i in range(40)]


def prompt_of(common: int, own: int, seed: int) -> list[int]:
    return COMMON[:common] + [(31 * i + 11 * seed + common) % VOCAB_SIZE for i in range(own)]


class Met(Counter[str]):
    """What the schedules of a test brought about: a test that meets nothing proves nothing."""

    def note(self, engine: OfflineEngine) -> None:
        stats = engine.scheduler.stats()
        self["retractions"] += stats.retractions
        self["prefix_hit_tokens"] += stats.prefix_hit_tokens
        self["host_pages"] += stats.host_pages_cached


def test_any_schedule_gives_the_bits_of_a_run_alone(case: EngineCase) -> None:
    oracles = {absorb_from: Oracle.of(case, absorb_from) for absorb_from in (0, 21, 2048)}
    met = Met()

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(schedules(), st.sampled_from(sorted(oracles)), st.lists(PROMPTS, min_size=1, max_size=3))
    def same(schedule: dict[str, Any], absorb_from: int, waves: list[Any]) -> None:
        engine = engine_for(case, schedule, absorb_from)
        oracle = oracles[absorb_from]
        for wave in waves:
            prompts = [prompt_of(*what) for what in wave]
            submits = [
                engine.request(prompt, NEW_TOKENS, sampling(seed))
                for prompt, (_, _, seed) in zip(prompts, wave, strict=True)
            ]
            answers = engine.run(submits)
            for prompt, (_, _, seed), answer in zip(prompts, wave, answers, strict=True):
                assert bits(answer) == oracle.answer(prompt, seed)
        met.note(engine)

    same()
    assert all(met[what] > 0 for what in ("retractions", "prefix_hit_tokens", "host_pages")), met


def test_deterministic_conversations_have_the_bits_of_cold_runs(case: EngineCase) -> None:
    """With --deterministic, also where an answer stands in the prompt of the next turn."""
    oracle = Oracle.of(case, absorb_from=0)
    met = Met()

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(schedules(), PROMPTS, st.integers(2, 4), st.integers(1, 5))
    def same(schedule: dict[str, Any], sessions: Any, turns: int, more: int) -> None:
        engine = engine_for(case, schedule, absorb_from=0)
        prompts = [prompt_of(min(common, 20), min(own, 8), seed) for common, own, seed in sessions]
        seeds = [seed for _, _, seed in sessions]
        for turn in range(turns):
            answers = engine.run(
                [
                    engine.request(prompt, NEW_TOKENS, sampling(seed))
                    for prompt, seed in zip(prompts, seeds, strict=True)
                ]
            )
            for prompt, seed, answer in zip(prompts, seeds, answers, strict=True):
                assert bits(answer) == oracle.answer(prompt, seed), turn
            prompts = [
                prompt + answer.token_ids + [(turn + i) % VOCAB_SIZE for i in range(more)]
                for prompt, answer in zip(prompts, answers, strict=True)
            ]
            prompts = [prompt for prompt in prompts if len(prompt) + NEW_TOKENS < SEQUENCE]
            seeds = seeds[: len(prompts)]
            if not prompts:
                break
        met.note(engine)

    same()
    assert met["prefix_hit_tokens"] > 0 and met["retractions"] > 0, met


@pytest.mark.parametrize("length", [17, 18, 33, 34])
def test_the_shipped_model_answers_a_prompt_twice_alike(length: int) -> None:
    """Pages hold 16 tokens: of 17 and 33 a warm cache leaves one to compute."""
    engine = OfflineEngine(EngineConfig(model="recipes/tiny-kimi", max_model_len=256))
    prompts = [[(97 * i + 13 * n) % 2000 for i in range(length)] for n in range(24)]

    def answers() -> list[Any]:
        submits = [
            engine.request(prompt, NEW_TOKENS, sampling(seed))
            for seed, prompt in enumerate(prompts)
        ]
        return [bits(engine.run([submit])[0]) for submit in submits]

    cold = answers()
    assert answers() == cold
    assert engine.scheduler.stats().prefix_hit_tokens == 24 * ((length - 1) // 16 * 16)
