# SPDX-License-Identifier: MIT
"""The scheduler seen from Python, driven by Hypothesis.

Random workloads on tiny pools run on a simulated device (scheduler_device.py)
whose samples depend on every KV entry that a sequence reads, so page mix-ups
change outputs; an oracle that knows neither pages nor batches gives the outputs
that must come.
"""

from __future__ import annotations

import numpy as np
import ts_scheduler
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from router_view import RouterView
from scheduler_device import Ask, Device, oracle

VOCAB = 23
tokens = st.integers(0, VOCAB - 1)
token_sets = st.lists(tokens, max_size=2).map(tuple)


@st.composite
def configs(draw: st.DrawFn) -> ts_scheduler.SchedulerConfig:
    page_size = draw(st.integers(1, 5))
    max_model_len = draw(st.integers(2, 40))
    max_num_seqs = draw(st.integers(1, 5))
    largest_request = -(-(max_model_len - 1) // page_size)
    return ts_scheduler.SchedulerConfig(
        page_size=page_size,
        num_pages=largest_request + draw(st.integers(0, 16)),
        max_num_seqs=max_num_seqs,
        max_model_len=max_model_len,
        max_num_batched_tokens=max_num_seqs + draw(st.integers(0, 40)),
        chunked_prefill_size=draw(st.integers(1, 20)),
        vocab_size=VOCAB,
        absorb_from=draw(st.integers(0, max_model_len)),
        enable_prefix_caching=draw(st.booleans()),
        params_size=8,
        max_overtakes=draw(st.integers(0, 3)),
    )


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(config=configs(), common=st.lists(tokens, min_size=40, max_size=40))
    def start(self, config: ts_scheduler.SchedulerConfig, common: list[int]) -> None:
        self.config = config
        self.scheduler = ts_scheduler.Scheduler(config)
        self.device = Device(config)
        self.router = RouterView(config.page_size)
        self.common = common  # prompts share prefixes of this
        self.asks: dict[int, Ask] = {}
        self.outputs: dict[int, list[int]] = {}
        self.finished: dict[int, int] = {}
        self.aborted: set[int] = set()
        self.plan: ts_scheduler.Plan | None = None

    @rule(
        data=st.data(),
        max_tokens=st.integers(1, 50),
        eos=token_sets,
        stops=token_sets,
        ignore_eos=st.booleans(),
        salt=st.sampled_from([b"", b"", b"tenant"]),
        priority=st.integers(-1, 1),
    )
    def submit(self, data, max_tokens, eos, stops, ignore_eos, salt, priority) -> None:
        length = data.draw(st.integers(1, self.config.max_model_len - 1))
        shared = data.draw(st.integers(0, length))
        own = data.draw(st.lists(tokens, min_size=length - shared, max_size=length - shared))
        ask = Ask(
            request_id=len(self.asks),
            prompt=(*self.common[:shared], *own),
            max_tokens=max_tokens,
            min_tokens=data.draw(st.integers(0, max_tokens)),
            eos_token_ids=eos,
            stop_token_ids=stops,
            ignore_eos=ignore_eos,
            cache_salt=salt,
            priority=priority,
        )
        ask.submit_to(self.scheduler)
        self.asks[ask.request_id] = ask
        self.outputs[ask.request_id] = []
        self.device.salts[ask.request_id] = salt

    @precondition(lambda self: self.plan is None)
    @rule()
    def step(self) -> None:
        self.launch()
        self.land()

    @precondition(lambda self: self.plan is None)
    @rule()
    def launch(self) -> None:
        self.plan = self.scheduler.plan()
        if self.plan is None:
            assert not self.alive, "a scheduler with requests found nothing to run"

    @precondition(lambda self: self.plan is not None)
    @rule()
    def land(self) -> None:
        if self.plan is None:
            return
        sampled = self.device.execute(self.plan)
        out = self.scheduler.commit(self.plan.step, sampled)
        self.plan = None
        assert len(set(out.request.tolist())) == len(out.request)
        for i, request_id in enumerate(out.request.tolist()):
            assert request_id in self.alive, "an ended request was mentioned again"
            assert out.token[i] == sampled[out.row[i]]
            self.outputs[request_id].append(int(out.token[i]))
            if out.finish[i]:
                self.finished[request_id] = int(out.finish[i])

    @precondition(lambda self: self.asks)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.asks)))
        assert self.scheduler.abort(request_id) == (request_id in self.alive)
        if request_id not in self.finished:
            self.aborted.add(request_id)

    @rule()
    def clear_prefix_cache(self) -> None:
        holds_pages = self.scheduler.stats().pages_used > 0
        assert self.scheduler.clear_prefix_cache() == (not holds_pages)

    @rule()
    def announce(self) -> None:
        self.router.receive(self.scheduler.kv_events(1.0))

    @rule()
    def hear_of_the_cache_late(self) -> None:
        """Who hears of it only now believes what a router believes that heard everything."""
        self.announce()
        self.scheduler.announce_cache()
        payload, late = self.scheduler.kv_events(1.0), RouterView(self.config.page_size)
        assert (payload is not None) == self.config.enable_prefix_caching
        late.receive(payload)
        assert late.blocks == self.router.blocks
        assert late.content == self.router.content
        self.router.receive(payload)

    @property
    def alive(self) -> set[int]:
        return self.asks.keys() - self.finished.keys() - self.aborted

    @invariant()
    def every_page_has_one_owner(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.check_invariants()

    @invariant()
    def pages_add_up(self) -> None:
        if hasattr(self, "scheduler"):
            stats = self.scheduler.stats()
            total = stats.pages_used + stats.pages_cached + stats.pages_free
            assert total == self.config.num_pages

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        if self.plan is not None:
            self.land()
        while self.alive:
            self.step()
        for request_id in self.finished:
            tokens, reason = oracle(self.asks[request_id], self.config.max_model_len, VOCAB)
            assert (self.outputs[request_id], self.finished[request_id]) == (tokens, reason)
        stats = self.scheduler.stats()
        assert (stats.waiting, stats.running, stats.pages_used) == (0, 0, 0)
        self.router.receive(self.scheduler.kv_events(1.0))
        salted = any(ask.cache_salt for ask in self.asks.values())
        assert len(self.router.blocks) <= stats.pages_cached
        assert salted or len(self.router.blocks) == stats.pages_cached
        assert self.scheduler.plan() is None


def test_any_workload_gives_every_request_its_own_output_and_loses_no_page() -> None:
    run_state_machine_as_test(
        SchedulerMachine,
        settings=settings(
            max_examples=200,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_the_same_calls_give_the_same_plans() -> None:
    def plans() -> list[bytes]:
        config = ts_scheduler.SchedulerConfig(
            page_size=2,
            num_pages=20,
            max_num_seqs=4,
            max_model_len=32,
            vocab_size=VOCAB,
            params_size=8,
        )
        scheduler, device, seen = ts_scheduler.Scheduler(config), Device(config), []
        for request_id in range(6):
            Ask(request_id, tuple(range(3 + request_id)), 20).submit_to(scheduler)
        while (plan := scheduler.plan()) is not None:
            seen.append(plan.row_slot.tobytes() + plan.row_start.tobytes())
            seen.append(plan.page_patch.tobytes() + plan.admitted_tokens.tobytes())
            scheduler.commit(plan.step, device.execute(plan))
        return seen

    assert plans() == plans()


def test_a_steady_decode_step_makes_no_new_array() -> None:
    scheduler = ts_scheduler.Scheduler(ts_scheduler.SchedulerConfig())
    scheduler.submit(1, np.arange(20, dtype=np.int32), max_tokens=50)
    views = []
    for _ in range(3):
        plan = scheduler.plan()
        assert plan is not None
        views.append((plan.row_slot, plan.row_start, plan.row_samples))
        scheduler.commit(plan.step, np.zeros(1, np.int32))
    assert all(a is b for a, b in zip(views[1], views[2], strict=True))


def test_views_stay_readable_when_the_scheduler_is_gone() -> None:
    scheduler = ts_scheduler.Scheduler(ts_scheduler.SchedulerConfig())
    scheduler.submit(1, np.arange(20, dtype=np.int32), max_tokens=50)
    plan = scheduler.plan()
    assert plan is not None
    tokens = plan.admitted_tokens
    del scheduler, plan
    assert tokens.tolist() == list(range(20))
