# SPDX-License-Identifier: MIT
"""The C++ scheduler decides exactly what its policy says.

It and a slow, obvious model of the policy (scheduler_model.py) get the same calls and
must agree after every one: in each field of a plan down to the page ids, in outputs,
statistics and KV events. Sampled tokens are random here; that a plan computes the right
thing is test_scheduler.py's claim.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
import ts_scheduler
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from kv_events_model import Event
from scheduler_device import Ask
from scheduler_model import CacheGroup, Config, SchedulerModel
from scheduler_model_state import NO_TOKEN

VOCAB = 3  # so few that sequences often come to the same content
# Of each token: any content, or nearly always the same, so that one sequence decodes what others
# compute, load or have cached.
ODDS = ((1, 1, 1), (100, 1, 1))
UNSAMPLEABLE = (0, 0.01, 0.1)  # how often a row's next token cannot be sampled
SALTS = (b"", b"", b"tenant", b"\xff no text")

# What a long load and a run of Hypothesis is about, beside drafts and overlap.
FEATURES = ("device", "host_tier", "roles", "host_tier_and_roles", "cache_groups")

OUTPUT_FIELDS = ("request", "token", "row", "finish", "cached_tokens")


class Pair:
    """The C++ scheduler and the model; every call goes to both and compares them."""

    def __init__(
        self,
        config: Config,
        announce_always: bool,
        odds: Sequence[int] = ODDS[0],
        unsampleable: float = 0,
    ) -> None:
        self.config = config
        self.odds = odds
        self.unsampleable = unsampleable
        self.cpp = ts_scheduler.Scheduler(
            ts_scheduler.SchedulerConfig(vocab_size=VOCAB, params_size=8, **fields_of(config))
        )
        self.model = SchedulerModel(config)
        self.announce_always = announce_always
        self.in_flight: list[dict[str, Any]] = []  # plans
        self.now = 0.0
        self.content_of_hash: dict[int, object] = {}

    def submit(self, ask: Ask) -> None:
        ask.submit_to(self.cpp)
        ask.submit_to(self.model)
        self._compare_state()

    def abort(self, request_id: int) -> None:
        assert self.cpp.abort(request_id) == self.model.abort(request_id)
        self._compare_state()

    def plan(self) -> bool:
        """False if there was nothing to plan."""
        expected = self.model.plan()
        plan = self.cpp.plan()
        if plan is None or expected is None:
            assert plan is None and expected is None
        else:
            assert {name: self._field(plan, name) for name in expected} == expected
            self.in_flight.append(expected)
        self._compare_state()
        return expected is not None

    def plan_too_early(self) -> None:
        with pytest.raises(RuntimeError):
            self.cpp.plan()
        self._compare_state()

    def commit(self, rng: random.Random) -> None:
        plan = self.in_flight.pop(0)
        most = [samples for samples in plan["row_samples"] if samples]
        counts = [rng.randint(1, samples) for samples in most] if rng.random() < 0.8 else None
        total = len(most) if counts is None else sum(counts)
        tokens = np.asarray(rng.choices(range(VOCAB), self.odds, k=total), np.int32)
        tokens[[rng.random() < self.unsampleable for _ in tokens]] = NO_TOKEN
        output = self.cpp.commit(
            plan["step"], tokens, None if counts is None else np.asarray(counts, np.int32)
        )
        expected = self.model.commit(plan["step"], tokens, counts)
        assert {name: plain(getattr(output, name)) for name in OUTPUT_FIELDS} == expected
        self._compare_state()

    @property
    def transfers(self) -> list[int]:
        """Under way, as plans named them."""
        return [transfer.number for transfer in self.model.transfers]

    def complete_transfer(self, transfer_id: int, ok: bool) -> None:
        self.model.complete_transfer(transfer_id, ok)
        self.cpp.complete_transfer(transfer_id, ok)
        self._compare_state()

    def complete_unknown_transfer(self) -> None:
        not_told_yet = [transfer.number for transfer in self.model.begun]
        for transfer_id in (0, *not_told_yet, 1 + self.model.numbered_transfers):
            with pytest.raises(ValueError):
                self.cpp.complete_transfer(transfer_id)
        self._compare_state()

    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        overdue = self.model.overdue_transfers(self.now)
        assert self.cpp.overdue_transfers(self.now) == overdue
        for transfer_id in overdue:  # as if the device had stopped it
            self.complete_transfer(transfer_id, False)

    def clear_prefix_cache(self) -> None:
        assert self.cpp.clear_prefix_cache() == self.model.clear_prefix_cache()
        self._compare_state()

    def announce(self) -> None:
        payload, expected = self.cpp.kv_events(1.5), self.model.kv_events()
        if payload is None or expected is None:
            assert payload is None and expected is None
            return
        timestamp, events, dp_rank = msgspec.msgpack.decode(payload)
        assert (timestamp, dp_rank, len(events)) == (1.5, 0, len(expected))
        for event, wanted in zip(events, expected, strict=True):
            self._learn_hashes(event, wanted)
            assert self._with_contents(event) == wanted

    def serve(self, rng: random.Random) -> bool:
        """One call of those that an engine makes all the time; False if none is left to make."""
        if self.transfers and rng.random() < 0.4:
            self.complete_transfer(rng.choice(self.transfers), rng.random() < 0.8)
        elif self.can_plan and self.plan():
            pass
        elif self.in_flight:
            self.commit(rng)
        elif self.transfers:
            self.complete_transfer(rng.choice(self.transfers), rng.random() < 0.8)
        else:
            return False
        return True

    def finish(self) -> None:
        """Run whatever is left to its end."""
        rng = random.Random(0)
        while self.serve(rng):
            pass
        stats = self.model.stats()
        assert (stats["waiting"], stats["running"], stats["pages_used"]) == (0, 0, 0)

    @property
    def can_plan(self) -> bool:
        return len(self.in_flight) <= self.config.overlap_depth

    def _field(self, plan: ts_scheduler.Plan, name: str) -> object:
        if name == "group_page_patch":
            groups = range(1, 1 + len(self.config.cache_groups))
            return [plain(plan.group_page_patch(group)) for group in groups]
        return plain(getattr(plan, name))

    def _compare_state(self) -> None:
        expected = self.model.stats()
        actual = self.cpp.stats()
        assert {name: getattr(actual, name) for name in expected} == expected
        if self.announce_always:
            self.announce()

    # The model names a page by its content where the C++ gives a hash: one for one.

    def _learn_hashes(self, event: Event, wanted: Event) -> None:
        if event["type"] != "BlockStored":
            return
        for name, content in zip(event["block_hashes"], wanted["block_hashes"], strict=True):
            assert self.content_of_hash.setdefault(name, content) == content
        assert len(set(self.content_of_hash.values())) == len(self.content_of_hash)

    def _with_contents(self, event: Event) -> Event:
        named = dict(event)
        if "block_hashes" in event:
            named["block_hashes"] = [self.content_of_hash[name] for name in event["block_hashes"]]
        if event.get("parent_block_hash") is not None:
            named["parent_block_hash"] = self.content_of_hash[event["parent_block_hash"]]
        return named


def fields_of(config: Config) -> dict[str, Any]:
    groups = [
        ts_scheduler.CacheGroup(group.kind, group.num_pages, group.window)
        for group in config.cache_groups
    ]
    return asdict(config) | {"cache_groups": groups}


def plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value


def random_config(
    rng: random.Random, overlap_depth: int, num_speculative_tokens: int, feature: str
) -> Config:
    """A pool in which the longest request just fits, and little more."""
    page_size = rng.randint(1, 5)
    max_model_len = rng.randint(2, 60)
    max_num_seqs = rng.randint(1, 6)
    chunked_prefill_size = rng.randint(1, rng.choice([3, 20]))
    # The decodes, and little more, or a chunk more, or plenty.
    more_tokens = rng.choice([rng.randint(0, 3), chunked_prefill_size, rng.randint(0, 30)])
    largest_request = -(-(max_model_len - 1) // page_size)
    return Config(
        page_size=page_size,
        num_pages=largest_request + rng.randint(0, 12),
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        max_num_batched_tokens=max_num_seqs * (1 + num_speculative_tokens) + more_tokens,
        chunked_prefill_size=chunked_prefill_size,
        max_overtakes=rng.choice([0, 1, 2, 3, 100]),
        absorb_from=rng.choice([0, rng.randint(0, max_model_len), max_model_len]),
        enable_prefix_caching=rng.random() < 0.8,
        overlap_depth=overlap_depth,
        num_speculative_tokens=num_speculative_tokens,
        cache_groups=random_groups(rng, page_size, num_speculative_tokens)
        if feature == "cache_groups"
        else (),
        peer_timeout=rng.choice([0.0, 0.5, 2.0]),
        num_host_pages=rng.choice([1, 20, 100, 100]) if "host_tier" in feature else 0,
    )


def random_groups(
    rng: random.Random, page_size: int, num_speculative_tokens: int
) -> tuple[CacheGroup, ...]:
    """With few pages or enough; a rejected draft cannot be taken out of a recurrent state."""
    groups = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        window = rng.choice([1, rng.randint(1, 30)])
        group = CacheGroup("sliding_window", num_pages=0, window=window)
        if num_speculative_tokens == 0 and rng.random() < 0.7:
            group = CacheGroup("recurrent", num_pages=0)
        num_pages = group.least_pages(page_size) + rng.choice([rng.randint(0, 12), 60])
        groups.append(replace(group, num_pages=num_pages))
    return tuple(groups)


def random_ask(
    rng: random.Random, request_id: int, common: list[int], config: Config, feature: str
) -> Ask:
    """Prompts share a beginning of `common`, some of them all of theirs."""
    length = rng.randint(1, rng.randint(1, config.max_model_len - 1))
    shared = rng.choice([0, length, rng.randint(0, length)])
    role = rng.choice(("aggregated", "prefill", "decode")) if "roles" in feature else "aggregated"
    max_tokens = 1 if role == "prefill" else rng.randint(1, 60)
    return Ask(
        request_id=request_id,
        prompt=(*common[:shared], *rng.choices(range(VOCAB), k=length - shared)),
        max_tokens=max_tokens,
        min_tokens=rng.randint(0, max_tokens),
        eos_token_ids=(2,) if rng.random() < 0.3 else (),
        stop_token_ids=(1,) if rng.random() < 0.1 else (),
        ignore_eos=rng.random() < 0.3,
        cache_salt=rng.choice(SALTS),
        priority=rng.choice([-1, 0, 0, 0, 1]),
        role=role,
    )


class PairMachine(RuleBasedStateMachine):
    feature: str

    @initialize(
        seed=st.integers(0, 2**32),
        overlap_depth=st.integers(0, 1),
        num_speculative_tokens=st.integers(0, 3),
        announce_always=st.booleans(),
    )
    def start(
        self, seed: int, overlap_depth: int, num_speculative_tokens: int, announce_always: bool
    ) -> None:
        rng = random.Random(seed)
        config = random_config(rng, overlap_depth, num_speculative_tokens, self.feature)
        odds = rng.choice(ODDS)
        self.pair = Pair(config, announce_always, odds, rng.choice(UNSAMPLEABLE))
        self.common = rng.choices(range(VOCAB), odds, k=60)
        self.submitted = 0

    @rule(seed=st.integers(0, 2**32))
    def submit(self, seed: int) -> None:
        rng = random.Random(seed)
        config = self.pair.config
        self.pair.submit(random_ask(rng, self.submitted, self.common, config, self.feature))
        self.submitted += 1

    @rule(seed=st.integers(0, 2**32), calls=st.integers(1, 40))
    def serve(self, seed: int, calls: int) -> None:
        """A while without other calls, in which requests come to their end."""
        rng = random.Random(seed)
        for _ in range(calls):
            self.pair.serve(rng)

    @precondition(lambda self: self.pair.can_plan)
    @rule()
    def plan(self) -> None:
        self.pair.plan()

    @precondition(lambda self: not self.pair.can_plan)
    @rule()
    def plan_too_early(self) -> None:
        self.pair.plan_too_early()

    @precondition(lambda self: self.pair.in_flight)
    @rule(seed=st.integers(0, 2**32))
    def commit(self, seed: int) -> None:
        self.pair.commit(random.Random(seed))

    @precondition(lambda self: self.pair.transfers)
    @rule(data=st.data(), ok=st.booleans())
    def complete_transfer(self, data: st.DataObject, ok: bool) -> None:
        self.pair.complete_transfer(data.draw(st.sampled_from(self.pair.transfers)), ok)

    @rule()
    def complete_unknown_transfer(self) -> None:
        self.pair.complete_unknown_transfer()

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.pair.abort(data.draw(st.integers(0, self.submitted - 1)))

    @rule(seconds=st.sampled_from([0.0, 0.4, 1.0, 3.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.pair.let_time_pass(seconds)

    @rule()
    def clear_prefix_cache(self) -> None:
        self.pair.clear_prefix_cache()

    @rule()
    def announce(self) -> None:
        self.pair.announce()

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.pair.finish()


@pytest.mark.timeout(900)  # a failure takes minutes to shrink
@pytest.mark.parametrize("feature", FEATURES)
def test_any_calls_give_the_plans_of_the_policy(feature: str) -> None:
    run_state_machine_as_test(
        type("MachineOfFeature", (PairMachine,), {"feature": feature}),
        settings=settings(
            max_examples=200,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("num_speculative_tokens", range(4))
@pytest.mark.parametrize("overlap_depth", range(2))
def test_a_long_load_gives_the_plans_of_the_policy(
    overlap_depth: int, num_speculative_tokens: int, feature: str, seed: int
) -> None:
    rng = random.Random(f"{feature} {overlap_depth} {num_speculative_tokens} {seed}")
    config = random_config(rng, overlap_depth, num_speculative_tokens, feature)
    run_load(rng, config, feature, calls=700)


def run_load(rng: random.Random, config: Config, feature: str, calls: int) -> None:
    """Many more calls than Hypothesis makes, the queue never empty for long."""
    odds = rng.choice(ODDS)
    pair = Pair(config, rng.random() < 0.5, odds, rng.choice(UNSAMPLEABLE))
    common = rng.choices(range(VOCAB), odds, k=60)
    longest_queue = rng.choice([3, 12, 12, 45])
    submitted = 0
    for _ in range(calls):
        luck = rng.random()
        if luck < 0.15 and len(pair.model.waiting) < longest_queue:
            pair.submit(random_ask(rng, submitted, common, config, feature))
            submitted += 1
        elif luck < 0.18 and submitted:
            running = [sequence.request.request_id for sequence in pair.model.running]
            pair.abort(rng.choice([*running, rng.randrange(submitted)]))
        elif luck < 0.185:
            pair.clear_prefix_cache()
        elif luck < 0.195:
            pair.let_time_pass(rng.choice([0.0, 0.3, 1.0]))
        elif luck < 0.22:
            pair.announce()
        elif pair.transfers and luck < 0.45:
            pair.complete_transfer(rng.choice(pair.transfers), rng.random() < 0.8)
        elif pair.can_plan and (luck < 0.75 or not pair.in_flight):
            pair.plan()
        elif pair.in_flight:
            pair.commit(rng)
    pair.finish()


@pytest.mark.parametrize(("passed_over", "admitted"), [(31, 1), (32, 0)])
def test_a_step_passes_over_32_requests_that_do_not_fit(passed_over: int, admitted: int) -> None:
    config = Config(
        page_size=1,
        num_pages=20,
        max_num_seqs=2,
        max_model_len=20,
        max_num_batched_tokens=20,
        chunked_prefill_size=20,
        max_overtakes=100,
    )
    pair = Pair(config, announce_always=True)
    pair.submit(Ask(0, (0,) * 10, max_tokens=9))
    pair.plan()
    pair.commit(random.Random(0))
    for request_id in range(1, 1 + passed_over):
        pair.submit(Ask(request_id, (1,) * 15, max_tokens=1))
    pair.submit(Ask(100, (2,), max_tokens=1))

    pair.plan()

    assert len(pair.in_flight[0]["admitted_slot"]) == admitted


def test_a_recurrent_state_from_inside_a_page_is_not_cached_as_that_of_its_end() -> None:
    config = Config(
        page_size=4,
        num_pages=20,
        max_num_seqs=2,
        max_model_len=20,
        max_num_batched_tokens=11,
        chunked_prefill_size=8,
        max_overtakes=100,
        cache_groups=(CacheGroup("recurrent", num_pages=12),),
    )
    pair = Pair(config, announce_always=True)
    pair.submit(Ask(0, (1,) * 8, max_tokens=1))
    pair.submit(Ask(1, (0,) * 9, max_tokens=1))
    pair.plan()  # leaves 3 tokens to the other one, and its state after them
    pair.commit(random.Random(0))
    pair.plan()
    assert pair.in_flight[0]["row_start"] == [3]  # from there to position 8, across a page's end
    pair.finish()

    pair.submit(Ask(2, (0,) * 5, max_tokens=1))
    pair.plan()

    assert pair.in_flight[0]["row_start"] == [0]
