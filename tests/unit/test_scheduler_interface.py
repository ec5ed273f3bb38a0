# SPDX-License-Identifier: MIT
"""What an execution plane sees of overlap, drafts, transfers, groups and roles."""

from __future__ import annotations

from typing import Any

import numpy as np
import ts_scheduler
from ts_scheduler import CacheGroup, Transfer

PAGE = 4


def make(**changes: Any) -> ts_scheduler.Scheduler:
    sizes = {"page_size": PAGE, "num_pages": 8, "max_num_seqs": 2, "max_model_len": 32}
    return ts_scheduler.Scheduler(
        ts_scheduler.SchedulerConfig(**(sizes | {"vocab_size": 100} | changes))
    )


def prompt(tokens: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + tokens, dtype=np.int32)


def planned(scheduler: ts_scheduler.Scheduler) -> ts_scheduler.Plan:
    plan = scheduler.plan()
    assert plan is not None
    return plan


def run(scheduler: ts_scheduler.Scheduler, token: int = 7) -> list[int]:
    """Commit `token` for every row, ending transfers at once; the tokens that were output."""
    output: list[int] = []
    while (plan := scheduler.plan()) is not None:
        transfers = plan.transfer_id.tolist()
        rows = int((plan.row_samples > 0).sum())
        output += scheduler.commit(plan.step, np.full(rows, token, np.int32)).token.tolist()
        for transfer in transfers:
            scheduler.complete_transfer(transfer)
    return output


def test_a_plan_stays_as_it_is_until_its_step_is_committed() -> None:
    scheduler = make(overlap_depth=1)
    scheduler.submit(1, prompt(3), max_tokens=9)
    first = planned(scheduler)
    second = planned(scheduler)
    assert (first.row_start.tolist(), first.row_tokens.tolist()) == ([0], [3])
    assert (second.row_start.tolist(), second.row_tokens.tolist()) == ([3], [1])
    assert second.step == first.step + 1
    scheduler.commit(first.step, np.array([5], np.int32))
    third = planned(scheduler)
    assert second.row_start.tolist() == [3]
    assert third.row_start.tolist() == [4]


def test_a_stop_voids_what_the_next_step_computes() -> None:
    scheduler = make(overlap_depth=1)
    scheduler.submit(1, prompt(3), max_tokens=9, stop_token_ids=[5])
    first, second = planned(scheduler), planned(scheduler)
    output = scheduler.commit(first.step, np.array([5], np.int32))
    assert output.finish.tolist() == [ts_scheduler.Finish.STOP]
    assert scheduler.commit(second.step, np.array([6], np.int32)).token.tolist() == []
    assert scheduler.stats().pages_used == 0


def test_a_row_with_drafts_yields_those_that_were_accepted() -> None:
    scheduler = make(num_speculative_tokens=3)
    scheduler.submit(1, prompt(3), max_tokens=9)
    scheduler.commit(planned(scheduler).step, np.array([1], np.int32))
    plan = planned(scheduler)
    assert (plan.row_start.tolist(), plan.row_tokens.tolist()) == ([3], [4])
    output = scheduler.commit(plan.step, np.array([2, 3], np.int32), np.array([2], np.int32))
    assert output.token.tolist() == [2, 3]
    assert planned(scheduler).row_start.tolist() == [5]


def test_an_evicted_prefix_is_stored_and_loaded_again() -> None:
    scheduler = make(num_host_pages=16)
    scheduler.submit(1, prompt(16), max_tokens=1)
    run(scheduler)
    scheduler.submit(2, prompt(28, 50), max_tokens=1)  # takes the place of the first
    plan = planned(scheduler)
    assert plan.transfer_kind.tolist() == [Transfer.STORE]
    assert len(plan.transfer_device_page) == len(plan.transfer_host_page) == plan.transfer_offset[1]
    scheduler.commit(plan.step, np.zeros(1, np.int32))
    scheduler.complete_transfer(int(plan.transfer_id[0]))
    scheduler.submit(3, prompt(16), max_tokens=1)
    plan = planned(scheduler)
    assert Transfer.LOAD in plan.transfer_kind.tolist()
    assert plan.num_rows == 0
    assert scheduler.stats().loading == 1
    kinds = dict(zip(plan.transfer_kind.tolist(), plan.transfer_id.tolist(), strict=True))
    scheduler.commit(plan.step, np.zeros(0, np.int32))
    scheduler.complete_transfer(kinds[Transfer.LOAD])
    plan = planned(scheduler)
    assert plan.row_start.tolist() == [12]
    output = scheduler.commit(plan.step, np.zeros(1, np.int32))
    assert output.cached_tokens.tolist() == [12]


def test_each_group_has_its_own_block_table() -> None:
    scheduler = make(
        cache_groups=[CacheGroup("sliding_window", 8, window=5), CacheGroup("recurrent", 8)]
    )
    scheduler.submit(1, prompt(16), max_tokens=1)
    plan = planned(scheduler)
    columns = [plan.group_page_patch(group)[:, 1].tolist() for group in range(3)]
    assert np.array_equal(plan.group_page_patch(0), plan.page_patch)
    assert columns == [[0, 1, 2, 3], [0, 1, 2, 3], [3]]
    assert len(scheduler.config.cache_groups) == 2


def test_a_prefill_hands_its_pages_to_a_decode_elsewhere() -> None:
    prefill, decode = make(), make()
    prefill.submit(9, prompt(10), max_tokens=1, role="prefill")
    plan = planned(prefill)
    pages = plan.page_patch[:, 2].tolist()
    output = prefill.commit(plan.step, np.array([3], np.int32))
    assert output.finish.tolist() == [ts_scheduler.Finish.LENGTH]
    send = planned(prefill)
    assert (send.num_rows, send.transfer_kind.tolist()) == (0, [Transfer.SEND])
    assert send.transfer_request.tolist() == [9]
    assert send.transfer_device_page.tolist() == pages
    prefill.commit(send.step, np.zeros(0, np.int32))
    assert prefill.stats().pages_used == 3
    prefill.complete_transfer(int(send.transfer_id[0]))
    assert prefill.stats().pages_used == 0

    decode.submit(9, prompt(10), max_tokens=3, role="decode")
    receive = planned(decode)
    assert (receive.num_rows, receive.transfer_kind.tolist()) == (0, [Transfer.RECEIVE])
    assert len(receive.transfer_device_page) == 3
    decode.commit(receive.step, np.zeros(0, np.int32))
    decode.complete_transfer(int(receive.transfer_id[0]))
    plan = planned(decode)
    assert (plan.row_start.tolist(), plan.row_tokens.tolist()) == ([9], [1])
    decode.commit(plan.step, np.array([7], np.int32))
    assert run(decode) == [7, 7]
