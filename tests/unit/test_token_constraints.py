# SPDX-License-Identifier: MIT
"""Logit bias and min_tokens, request by request and slot by slot."""

from types import SimpleNamespace

import numpy as np
import torch

from dynamo_tokenspeed.engine.token_constraints import TokenConstraints
from dynamo_tokenspeed.protocol import Submit

CPU = torch.device("cpu")


def submit(request_id: int, **fields) -> Submit:
    return Submit(request_id=request_id, token_ids=b"", max_tokens=8, **fields)


def triples(constraints: TokenConstraints, slots, generated):
    bias = constraints.token_bias(np.array(slots, np.int32), np.array(generated, np.int32))
    if bias is None:
        return []
    columns = (bias.row, bias.token, bias.value)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_request_without_constraints_costs_nothing():
    constraints = TokenConstraints(CPU)
    constraints.remember(submit(1))
    constraints.take_slots([1], [0])
    assert triples(constraints, [0], [0]) == []


def test_bias_is_added_to_the_row_of_the_requests_slot():
    constraints = TokenConstraints(CPU)
    constraints.remember(submit(1, logit_bias={7: -100.0}))
    constraints.take_slots([1], [3])
    assert triples(constraints, [2, 3], [0, 0]) == [(1, 7, -100.0)]


def test_stop_tokens_are_banned_until_min_tokens_are_generated():
    constraints = TokenConstraints(CPU)
    constraints.remember(submit(1, min_tokens=2, eos_token_ids=[5], stop_token_ids=[6]))
    constraints.take_slots([1], [0])
    assert triples(constraints, [0], [1]) == [(0, 5, -np.inf), (0, 6, -np.inf)]
    assert triples(constraints, [0], [2]) == []


def test_ignored_eos_may_be_sampled_before_min_tokens():
    constraints = TokenConstraints(CPU)
    constraints.remember(
        submit(1, min_tokens=2, eos_token_ids=[5], stop_token_ids=[6], ignore_eos=True)
    )
    constraints.take_slots([1], [0])
    assert triples(constraints, [0], [0]) == [(0, 6, -np.inf)]


def test_the_next_request_in_a_slot_does_not_inherit_constraints():
    constraints = TokenConstraints(CPU)
    constraints.remember(submit(1, logit_bias={7: 1.0}))
    constraints.take_slots([1], [0])
    constraints.take_slots([2], [0])
    assert triples(constraints, [0], [0]) == []


def test_constraints_survive_a_retraction_into_another_slot():
    constraints = TokenConstraints(CPU)
    constraints.remember(submit(1, logit_bias={7: 1.0}))
    constraints.take_slots([1], [0])
    constraints.take_slots([1], [4])
    assert triples(constraints, [4], [0]) == [(0, 7, 1.0)]


def test_finished_and_aborted_requests_are_forgotten():
    constraints = TokenConstraints(CPU)
    for request_id in (1, 2, 3):
        constraints.remember(submit(request_id, logit_bias={7: 1.0}))
    constraints.forget(1)
    constraints.forget_finished(
        SimpleNamespace(request=np.array([2, 3], np.uint64), finish=np.array([1, 0], np.uint8))
    )
    constraints.take_slots([1, 2, 3], [0, 1, 2])
    assert triples(constraints, [0, 1, 2], [0, 0, 0]) == [(2, 7, 1.0)]


def test_what_several_rows_ask_for_is_told_row_by_row():
    constraints = TokenConstraints(CPU)
    constraints.remember(submit(1, logit_bias={7: 1.0, 8: 2.0}, min_tokens=4, stop_token_ids=[5]))
    constraints.remember(submit(2, logit_bias={9: 3.0}))
    constraints.take_slots([1, 2], [4, 0])
    assert triples(constraints, [0, 3, 4], [0, 0, 3]) == [
        (0, 9, 3.0),
        (2, 7, 1.0),
        (2, 8, 2.0),
        (2, 5, -np.inf),
    ]
    assert triples(constraints, [4, 0], [4, 4]) == [(0, 7, 1.0), (0, 8, 2.0), (1, 9, 3.0)]
