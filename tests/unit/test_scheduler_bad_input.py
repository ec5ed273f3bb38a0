# SPDX-License-Identifier: MIT
"""Any call with any values is an answer or a Python exception with a sentence, never harm."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import numpy as np
import pytest
import ts_scheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_device import Ask, Device, oracle

PROMPT = np.arange(5, dtype=np.int32)


def make(**changes: Any) -> ts_scheduler.Scheduler:
    sizes = {"page_size": 4, "num_pages": 16, "max_num_seqs": 4, "max_model_len": 32}
    return ts_scheduler.Scheduler(
        ts_scheduler.SchedulerConfig(**(sizes | {"vocab_size": 100} | changes))
    )


def observe(scheduler: ts_scheduler.Scheduler) -> tuple[int, ...]:
    stats = scheduler.stats()
    return tuple(getattr(stats, name) for name in dir(stats) if not name.startswith("_"))


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("request_id", -1, ValueError),
        ("request_id", 2**64, ValueError),
        ("request_id", "7", TypeError),
        ("request_id", True, TypeError),
        ("prompt", np.zeros(0, np.int32), ValueError),
        ("prompt", np.zeros(3, np.int64), TypeError),
        ("prompt", np.zeros(3, np.uint32), TypeError),
        ("prompt", np.zeros((2, 2), np.int32), TypeError),
        ("prompt", np.zeros(6, np.int32)[::2], TypeError),
        ("prompt", [1, 2], TypeError),
        ("prompt", b"\0\0\0\0", TypeError),
        ("prompt", np.full(3, 100, np.int32), ValueError),
        ("prompt", np.full(3, -1, np.int32), ValueError),
        ("prompt", np.zeros(32, np.int32), ValueError),
        ("max_tokens", 0, ValueError),
        ("max_tokens", -(2**70), ValueError),
        ("max_tokens", 1.5, TypeError),
        ("max_tokens", None, TypeError),
        ("min_tokens", -1, ValueError),
        ("min_tokens", 6, ValueError),
        ("eos_token_ids", (100,), ValueError),
        ("eos_token_ids", 3, TypeError),
        ("stop_token_ids", (-1,), ValueError),
        ("stop_token_ids", ("a",), TypeError),
        ("stop_token_ids", (2**40,), ValueError),
        ("ignore_eos", 1, TypeError),
        ("cache_salt", "text", TypeError),
        ("priority", 2**63, ValueError),
        ("priority", -(2**63), ValueError),
        ("params", b"12345", ValueError),
        ("params", None, TypeError),
        ("role", "both", ValueError),
        ("role", 1, TypeError),
        ("role", "prefill", ValueError),  # max_tokens is not 1
    ],
)
def test_a_bad_argument_of_submit_is_named_and_changes_nothing(
    argument: str, value: object, error: type[Exception]
) -> None:
    scheduler = make(params_size=8)
    arguments = {"request_id": 1, "prompt": PROMPT, "max_tokens": 5} | {argument: value}
    before = observe(scheduler)
    with pytest.raises(error, match=argument):
        scheduler.submit(**arguments)
    assert observe(scheduler) == before
    assert scheduler.plan() is None


@pytest.mark.parametrize("name", ["page_size", "num_pages", "max_num_seqs", "vocab_size"])
@pytest.mark.parametrize("value", [0, -1, 2**31, "4", None])
def test_a_bad_size_is_named(name: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        make(**{name: value})


def test_the_largest_numbers_are_no_overflow() -> None:
    scheduler = make()
    scheduler.submit(2**64 - 1, PROMPT, max_tokens=2**63 - 1, min_tokens=2**63 - 1)
    plan = scheduler.plan()
    assert plan is not None and plan.admitted_request.tolist() == [2**64 - 1]


def test_an_error_in_an_iterable_argument_is_passed_on() -> None:
    def stops() -> Any:
        yield 1
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        make().submit(1, PROMPT, max_tokens=1, stop_token_ids=stops())


@pytest.mark.parametrize(
    ("step", "tokens", "error", "sentence"),
    [
        (2, np.zeros(1, np.int32), ValueError, "step is 2"),
        (-1, np.zeros(1, np.int32), ValueError, "step is -1"),
        ("1", np.zeros(1, np.int32), TypeError, "step must be an int"),
        (1, np.zeros(2, np.int32), ValueError, "token_ids has 2 entries"),
        (1, np.zeros(1, np.float32), TypeError, "token_ids must be"),
        (1, np.full(1, 100, np.int32), ValueError, r"token_ids\[0\] is 100"),
        (1, None, TypeError, "token_ids must be"),
    ],
)
def test_a_bad_commit_leaves_the_step_in_flight(
    step: Any, tokens: Any, error: type[Exception], sentence: str
) -> None:
    scheduler = make()
    scheduler.submit(1, PROMPT, max_tokens=5)
    plan = scheduler.plan()
    assert plan is not None
    with pytest.raises(error, match=sentence):
        scheduler.commit(step, tokens)
    assert scheduler.commit(plan.step, np.zeros(1, np.int32)).token.tolist() == [0]


def test_planning_while_a_step_is_in_flight_is_refused() -> None:
    scheduler = make()
    scheduler.submit(1, PROMPT, max_tokens=5)
    scheduler.plan()
    with pytest.raises(RuntimeError, match="step 1 is in flight; commit it"):
        scheduler.plan()


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**66), 2**66),
    st.integers(0, 6),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=9),
    st.lists(st.integers(-1, 100), max_size=5),
    st.lists(st.integers(-1, 100), max_size=40).map(lambda ids: np.asarray(ids, np.int32)),
    st.just(np.zeros((2, 2), np.int32)),
)
OPTIONS = (
    *("max_tokens", "min_tokens", "eos_token_ids", "stop_token_ids"),
    *("ignore_eos", "cache_salt", "priority", "params"),
)
calls = st.one_of(
    st.tuples(
        st.just("submit"),
        st.tuples(anything, anything),
        st.dictionaries(st.sampled_from(OPTIONS), anything),
    ),
    st.tuples(
        st.just("submit"), st.tuples(st.integers(0, 9), st.just(PROMPT)), st.just({"max_tokens": 9})
    ),
    st.tuples(st.just("abort"), st.tuples(anything), st.just({})),
    st.tuples(st.just("plan"), st.just(()), st.just({})),
    st.tuples(st.just("commit"), st.tuples(anything, anything), st.just({})),
    st.tuples(st.just("land"), st.just(()), st.just({})),
    st.tuples(st.just("kv_events"), st.tuples(anything), st.just({})),
    st.tuples(st.just("clear_prefix_cache"), st.just(()), st.just({})),
)


@settings(max_examples=300, deadline=None)
@given(sequence=st.lists(calls, max_size=30))
def test_any_sequence_of_calls_with_any_values_is_safe(
    sequence: list[tuple[str, tuple, dict]],
) -> None:
    scheduler, plan = make(params_size=8), None
    for name, positional, named in sequence:
        before = observe(scheduler)
        try:
            if name == "land":
                if plan is not None:
                    samples = np.zeros(int(plan.row_samples.sum()), np.int32)
                    step, plan = plan.step, None
                    scheduler.commit(step, samples)
            else:
                result = getattr(scheduler, name)(*positional, **named)
                plan = result if name == "plan" else None if name == "commit" else plan
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            assert len(str(error)) > 10
            assert observe(scheduler) == before
        scheduler.check_invariants()


def test_calls_from_several_threads_take_turns() -> None:
    scheduler = make(num_pages=64, max_num_seqs=8)
    device, asks, outputs = Device(scheduler.config), {}, {}

    def submit(first: int) -> None:
        for request_id in range(first, first + 50):
            asks[request_id] = Ask(request_id, (request_id % 100, 7, first % 100), 12)
            outputs[request_id] = []
            scheduler.submit(
                request_id, np.asarray(asks[request_id].prompt, np.int32), max_tokens=12
            )

    threads = [threading.Thread(target=submit, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or scheduler.stats().waiting:
        while (plan := scheduler.plan()) is not None:
            out = scheduler.commit(plan.step, device.execute(plan))
            for request_id, token in zip(out.request.tolist(), out.token.tolist(), strict=True):
                outputs[request_id].append(token)
    assert len(outputs) == 150
    for request_id, ask in asks.items():
        assert outputs[request_id] == oracle(ask, 32, 100)[0]


def test_salted_pages_are_announced_with_their_salt() -> None:
    scheduler = make()
    scheduler.submit(1, np.arange(9, dtype=np.int32), max_tokens=1, cache_salt=b"tenant")
    plan = scheduler.plan()
    assert plan is not None
    scheduler.commit(plan.step, np.zeros(1, np.int32))
    payload = scheduler.kv_events(2.5)
    assert payload is not None
    timestamp, [event], dp_rank = msgspec.msgpack.decode(payload)
    assert (timestamp, dp_rank, event["cache_salt"]) == (2.5, 0, "tenant")
    assert event["token_ids"] == list(range(8))
    assert scheduler.kv_events(3.0) is None


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"overlap_depth": 2}, ValueError, "overlap_depth is 2"),
        ({"num_speculative_tokens": 64}, ValueError, "num_speculative_tokens is 64"),
        ({"num_speculative_tokens": 63, "max_num_batched_tokens": 255}, ValueError, "draft tokens"),
        ({"min_tps_per_user": -1.0}, ValueError, "min_tps_per_user is -1"),
        ({"peer_timeout": -1.0}, ValueError, "peer_timeout is -1"),
        ({"peer_timeout": float("nan")}, ValueError, "peer_timeout is"),
        ({"peer_timeout": "5"}, TypeError, "peer_timeout must be"),
        ({"min_tps_per_user": float("nan")}, ValueError, "min_tps_per_user is"),
        ({"min_tps_per_user": "70"}, TypeError, "min_tps_per_user must be"),
        ({"num_host_pages": -1}, ValueError, "num_host_pages is -1"),
        ({"cache_groups": 3}, TypeError, "cache_groups must be"),
        ({"cache_groups": ["window"]}, TypeError, "cache_groups must be"),
    ],
)
def test_a_bad_option_is_named(
    changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        make(**changes)


@pytest.mark.parametrize(
    ("group", "changes", "sentence"),
    [
        (("sliding_window", 1, 8), {}, r"cache_groups\[0\]\.num_pages is 1"),
        (("sliding_window", 64), {}, r"cache_groups\[0\]\.window is 0"),
        (("recurrent", 64, 8), {}, r"cache_groups\[0\]\.window is 8"),
        (("recurrent", 64), {"num_speculative_tokens": 1}, "num_speculative_tokens is 1"),
        (("recurrent", 64), {"num_host_pages": 8}, "num_host_pages is 8"),
    ],
)
def test_a_cache_group_that_cannot_work_is_refused(
    group: tuple[Any, ...], changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(cache_groups=[ts_scheduler.CacheGroup(*group)], **changes)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (("linear", 8), ValueError, "kind is 'linear'"),
        ((3, 8), TypeError, "kind must be a str"),
        (("recurrent", 2**40), ValueError, "num_pages is"),
        (("recurrent", "8"), TypeError, "num_pages must be"),
    ],
)
def test_a_bad_argument_of_a_cache_group_is_named(
    arguments: tuple[Any, ...], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        ts_scheduler.CacheGroup(*arguments)


@pytest.mark.parametrize(
    ("tokens", "options", "error", "sentence"),
    [
        (1, {"counts": np.zeros(1, np.int32)}, ValueError, r"counts\[0\] is 0"),
        (3, {"counts": np.full(1, 4, np.int32)}, ValueError, "1 to 3 tokens"),
        (1, {"counts": np.ones(2, np.int32)}, ValueError, "counts has 2 entries"),
        (1, {"counts": np.full(1, 2, np.int32)}, ValueError, "counts add up to 2"),
        (1, {"counts": np.zeros(0, np.int32)}, ValueError, "counts has no entries"),
        (1, {"counts": [1]}, TypeError, "counts must be"),
        (1, {"seconds": -0.5}, ValueError, "seconds is -0.5"),
        (1, {"seconds": float("nan")}, ValueError, "seconds is"),
        (1, {"seconds": 1e7}, ValueError, "seconds is 10000000"),
        (1, {"seconds": "1"}, TypeError, "seconds must be"),
    ],
)
def test_a_bad_commit_of_drafts_changes_nothing(
    tokens: int, options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    scheduler = make(num_speculative_tokens=2)
    scheduler.submit(1, PROMPT, max_tokens=9)
    first = scheduler.plan()
    assert first is not None
    scheduler.commit(first.step, np.zeros(1, np.int32))
    plan = scheduler.plan()
    assert plan is not None and plan.row_samples.tolist() == [3]
    before = observe(scheduler)
    with pytest.raises(error, match=sentence):
        scheduler.commit(plan.step, np.zeros(tokens, np.int32), **options)
    assert observe(scheduler) == before
    scheduler.commit(plan.step, np.zeros(3, np.int32), counts=np.full(1, 3, np.int32))


@pytest.mark.parametrize(
    ("transfer_id", "ok", "error", "sentence"),
    [
        (1, True, ValueError, "transfer_id is 1"),
        (-1, True, ValueError, "transfer_id is -1"),
        ("1", True, TypeError, "transfer_id must be"),
        (1, 1, TypeError, "ok must be a bool"),
    ],
)
def test_a_transfer_that_is_not_under_way_cannot_end(
    transfer_id: Any, ok: Any, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        make(num_host_pages=4).complete_transfer(transfer_id, ok)


@pytest.mark.parametrize("group", [-1, 1, "0", None])
def test_a_group_that_the_plan_does_not_have_is_refused(group: Any) -> None:
    scheduler = make()
    scheduler.submit(1, PROMPT, max_tokens=9)
    plan = scheduler.plan()
    assert plan is not None
    with pytest.raises((ValueError, TypeError), match="group"):
        plan.group_page_patch(group)
