# SPDX-License-Identifier: MIT
"""A small KV cache with a host tier answers like a large one, from pages that came back."""

from __future__ import annotations

import random
import threading
import time

import pytest
import ts_scheduler
from engine_cases import EngineCase, make_case

from dynamo_tokenspeed.engine.offline import Completion, OfflineEngine
from dynamo_tokenspeed.protocol import SamplingParams

NEW_TOKENS = 12
HOST_BYTES = 4 << 20  # more than all prompts of a case need
SECONDS = 60  # that nothing here takes


@pytest.fixture(scope="module", params=[0, 1, 2, 4], ids="geometry{}".format)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EngineCase:
    return make_case(request.param, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def answers(case: EngineCase) -> list[list[int]]:
    return tokens(case.engine().generate(case.prompts, NEW_TOKENS))


@pytest.fixture(params=[False, True], ids=["one step at a time", "overlap"])
def overlap(request: pytest.FixtureRequest) -> bool:
    return request.param


def small(case: EngineCase, spare_pages: int = 0, **config) -> OfflineEngine:
    """A KV cache for one sequence and a little more."""
    longest = max(map(len, case.prompts)) + NEW_TOKENS
    return case.engine(
        max_model_len=longest,
        num_pages=case.pages(longest) + spare_pages,
        kv_offloading_bytes=HOST_BYTES,
        **config,
    )


def test_a_prefix_that_was_evicted_comes_back(
    case: EngineCase, answers: list[list[int]], overlap: bool
) -> None:
    engine = small(case, max_num_seqs=1, overlap_schedule=overlap)
    cold = engine.generate(case.prompts, NEW_TOKENS)

    warm = engine.generate(case.prompts, NEW_TOKENS)

    assert tokens(cold) == answers
    assert tokens(warm) == answers
    # As if nothing had ever been evicted: every full page but that of the last token.
    assert [completion.cached_tokens for completion in warm] == [
        (len(prompt) - 1) // case.page_size * case.page_size for prompt in case.prompts
    ]
    engine.scheduler.check_invariants()


def test_requests_that_load_beside_others_that_run(
    case: EngineCase, answers: list[list[int]], overlap: bool
) -> None:
    engine = small(case, spare_pages=4, overlap_schedule=overlap)

    for _ in range(3):
        assert tokens(engine.generate(case.prompts, NEW_TOKENS)) == answers
        engine.scheduler.check_invariants()
        assert engine.scheduler.stats().pages_used == 0


def test_a_retracted_request_draws_the_same_tokens(tmp_path, overlap: bool) -> None:
    case = make_case(0, tmp_path)
    sampling = SamplingParams(seed=3, temperature=1.0, repetition_penalty=1.3)
    prompts = [[token] * case.page_size for token in range(1, 7)]
    alone = [tokens(case.engine().generate([prompt], 40, sampling))[0] for prompt in prompts]
    engine = case.engine(
        max_model_len=60,
        num_pages=case.pages(60) + 6,
        kv_offloading_bytes=HOST_BYTES,
        overlap_schedule=overlap,
    )

    together = engine.generate(prompts, 40, sampling)

    assert tokens(together) == alone
    assert engine.scheduler.stats().retractions > 0


def test_a_host_tier_too_small_for_everything_still_answers_right(
    case: EngineCase, answers: list[list[int]]
) -> None:
    few = small(case, max_num_seqs=1)._engine.capacity
    engine = case.engine(
        max_model_len=few.max_model_len,
        num_pages=few.num_pages,
        kv_offloading_bytes=3 * few.kv_bytes // few.num_pages,  # three pages
    )

    for _ in range(2):
        assert tokens(engine.generate(case.prompts, NEW_TOKENS)) == answers


def test_a_load_that_stands_still_holds_up_nobody_elses_steps(
    case: EngineCase,
    answers: list[list[int]],
    overlap: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longest = max(range(len(case.prompts)), key=lambda index: len(case.prompts[index]))
    other = [1, 2, 3]
    [alone] = tokens(case.engine().generate([other], NEW_TOKENS))
    engine = small(case, spare_pages=case.pages(len(other) + NEW_TOKENS), overlap_schedule=overlap)
    engine.generate([case.prompts[longest]], NEW_TOKENS)
    for evicting in (7, 8):
        engine.generate([[evicting] * len(case.prompts[longest])], NEW_TOKENS)
    executor = engine._engine.executor
    assert executor.transfers is not None
    tier, launch = executor.transfers._pool, executor.launch
    may_load, order = threading.Event(), []
    load = tier.load

    def load_late(device_pages, host_pages) -> None:
        assert may_load.wait(SECONDS)
        load(device_pages, host_pages)
        order.append("load ends")

    def launch_and_note(plan: ts_scheduler.Plan):
        if ts_scheduler.Transfer.LOAD in plan.transfer_kind:
            order.append("load is launched")
        if plan.num_rows:
            order.append("step")
        if order.count("step") == NEW_TOKENS:  # the other request's last one
            may_load.set()
        return launch(plan)

    monkeypatch.setattr(tier, "load", load_late)
    monkeypatch.setattr(executor, "launch", launch_and_note)

    together = engine.generate([case.prompts[longest], other], NEW_TOKENS)

    assert tokens(together) == [answers[longest], alone]
    assert together[0].cached_tokens > 0
    beside = order[order.index("load is launched") : order.index("load ends")]
    assert beside.count("step") == NEW_TOKENS


@pytest.mark.parametrize("seed", range(3))
def test_transfers_that_are_late_or_fail_change_no_answer(
    case: EngineCase,
    answers: list[list[int]],
    overlap: bool,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = small(case, spare_pages=4, overlap_schedule=overlap)
    assert engine._engine.executor.transfers is not None
    tier = engine._engine.executor.transfers._pool
    rng = random.Random(seed)
    failed: list[str] = []

    def unreliable(name: str):
        copy = getattr(tier, name)

        def carry_out(device_pages, host_pages) -> None:
            time.sleep(rng.choice([0, 0, 0.001, 0.01]))
            if rng.random() < 0.3:
                failed.append(name)
                tier.pages[host_pages if name == "store" else []] = float("nan")  # half written
                raise OSError("the host tier is out of order")
            copy(device_pages, host_pages)

        return carry_out

    for name in ("store", "load"):
        monkeypatch.setattr(tier, name, unreliable(name))

    while {"store", "load"} != set(failed):
        assert tokens(engine.generate(case.prompts, NEW_TOKENS)) == answers
        engine.scheduler.check_invariants()


def tokens(completions: list[Completion]) -> list[list[int]]:
    return [completion.token_ids for completion in completions]
