# SPDX-License-Identifier: MIT
"""Two workers behind the KV router: a conversation goes where its pages are, while they are."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

import openai
import pytest
import zmq
from openai_client import WHERE, connect
from router_index import events_applied
from tiny_kimi import NUM_PAGES, PAGE_SIZE, RECIPE, WORKER_FLAGS
from worker_metrics import eventually, total

from dynamo_tokenspeed.launch import loopback
from dynamo_tokenspeed.launch.deployment import Deployment

PROMPT_TOKENS = 40 * PAGE_SIZE
SEEDS: Iterator[int] = iter(range(1_000_000))


@dataclass(frozen=True)
class Served:
    """What came back for a prompt, and from where."""

    worker_id: int
    cached_tokens: int
    kv_hit_rate: float  # what the router believed
    token_ids: list[int]


@pytest.fixture
def ask(deployment: Deployment, client: openai.OpenAI, model: str):
    """Sends a prompt of token ids, and waits until the router has heard of its pages."""

    def send(prompt: list[int], max_tokens: int = 4) -> Served:
        before = events_applied(deployment)
        extra = ["completion_token_ids", *WHERE["nvext"]["extra_fields"]]
        answer = client.completions.create(
            model=model,
            prompt=prompt,
            max_tokens=max_tokens,
            temperature=0,
            extra_body={"ignore_eos": True, "nvext": {"extra_fields": extra}},
        )
        assert answer.usage is not None
        details = answer.usage.prompt_tokens_details
        served = Served(
            answer.nvext["worker_id"]["decode_worker_id"],
            details.cached_tokens or 0 if details else 0,
            answer.nvext["timing"]["kv_hit_rate"],
            answer.nvext["completion_token_ids"],
        )
        if len(prompt) - served.cached_tokens > PAGE_SIZE:  # then there are new pages
            assert eventually(lambda: events_applied(deployment) > before)
        return served

    return send


def new_prompt(tokens: int = PROMPT_TOKENS) -> list[int]:
    """A prompt that shares no page with any other."""
    rng = random.Random(next(SEEDS))
    return [rng.randrange(4000) for _ in range(tokens)]


def test_the_second_turn_lands_where_the_first_one_is(ask) -> None:
    first_turns = [(prompt := new_prompt(), ask(prompt)) for _ in range(4)]

    second_turns = [ask(prompt + first.token_ids + new_prompt(20)) for prompt, first in first_turns]

    assert [turn.worker_id for turn in second_turns] == [
        first.worker_id for _, first in first_turns
    ]
    assert all(turn.cached_tokens >= PROMPT_TOKENS for turn in second_turns)
    assert all(turn.kv_hit_rate > 0.9 for turn in second_turns)


def test_conversations_are_spread_over_the_workers(deployment: Deployment, ask) -> None:
    workers = {ask(new_prompt(4 * PAGE_SIZE)).worker_id for _ in range(12)}

    assert workers == {worker.instance_id for worker in deployment.workers}


def test_a_new_conversation_finds_nothing(ask) -> None:
    served = ask(new_prompt())

    assert served.cached_tokens == 0
    assert served.kv_hit_rate == 0


def test_two_conversations_share_their_system_prompt(ask) -> None:
    system = new_prompt()
    first = ask(system + new_prompt(50))

    second = ask(system + new_prompt(50))

    assert second.worker_id == first.worker_id
    assert second.cached_tokens == PROMPT_TOKENS


def test_an_evicted_prefix_is_not_routed_to_until_it_is_there_again(
    deployment: Deployment, ask
) -> None:
    prompt = new_prompt()
    assert ask(prompt).kv_hit_rate == 0
    assert ask(prompt).kv_hit_rate > 0.9

    fill_pools(deployment, ask)
    evicted = ask(prompt)
    again = ask(prompt)

    assert (evicted.cached_tokens, evicted.kv_hit_rate) == (0, 0)
    # The last token is always computed, and with it its page.
    assert again.cached_tokens == PROMPT_TOKENS - PAGE_SIZE
    assert again.kv_hit_rate > 0.9
    assert again.worker_id == evicted.worker_id


def fill_pools(deployment: Deployment, ask) -> None:
    """Other prompts, until every worker has had to take all its pages for them."""
    pages = {worker.instance_id: 0 for worker in deployment.workers}
    while min(pages.values()) < NUM_PAGES:
        served = ask(new_prompt())
        pages[served.worker_id] += PROMPT_TOKENS // PAGE_SIZE


def test_a_cleared_cache_is_no_longer_routed_to(deployment: Deployment, ask) -> None:
    prompt = new_prompt()
    ask(prompt)
    before = events_applied(deployment)

    for worker in deployment.workers:
        assert worker.control("clear_kv_blocks") == {"status": "ok", "cleared": True}
    assert eventually(lambda: events_applied(deployment) >= before + 2)
    again = ask(prompt)

    assert again.cached_tokens == 0
    assert again.kv_hit_rate == 0
    assert ask(prompt).kv_hit_rate > 0.9  # and learned anew


def test_a_worker_says_what_its_cache_saved(deployment: Deployment, ask) -> None:
    saved = total(deployment.workers, "prefix_hit_tokens")
    prompt = new_prompt()

    for _ in range(2):
        ask(prompt)

    hits = total(deployment.workers, "prefix_hit_tokens") - saved
    assert hits == PROMPT_TOKENS - PAGE_SIZE


def test_the_router_knows_the_cache_after_it_was_announced_again() -> None:
    """Every subscriber makes the engine say what is cached; the router's view stays true."""
    endpoint = f"tcp://{loopback.HOST}:{loopback.free_port()}"
    flags = (*WORKER_FLAGS, "--kv-events-config", json.dumps({"endpoint": endpoint}))
    with Deployment.from_recipe(RECIPE, workers=1, worker_flags=flags) as deployment:
        client = connect(deployment)
        prompt = [1000 + i for i in range(PROMPT_TOKENS)]

        def hit_rate() -> float:
            answer = client.completions.create(
                model=deployment.model, prompt=prompt, max_tokens=1, extra_body=WHERE
            )
            return float(answer.nvext["timing"]["kv_hit_rate"])

        assert hit_rate() == 0
        assert eventually(lambda: events_applied(deployment) > 0)
        before = events_applied(deployment)
        context = zmq.Context()
        try:
            newcomer = context.socket(zmq.SUB)
            newcomer.connect(endpoint)
            newcomer.subscribe(b"")
            assert newcomer.poll(5000)
            assert b"AllBlocksCleared" in newcomer.recv_multipart()[2]
        finally:
            context.destroy(linger=0)

        assert eventually(lambda: events_applied(deployment) >= before + 2)  # cleared, stored
        assert hit_rate() > 0.9
