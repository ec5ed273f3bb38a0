# SPDX-License-Identifier: MIT
"""The door and the scheduler agree: what the one lets pass the other takes."""

from __future__ import annotations

import random

import ts_scheduler
from dynamo.llm.exceptions import InvalidArgument
from hypothesis import assume, given
from hypothesis import strategies as st

from dynamo_tokenspeed.engine.inbox import submit
from dynamo_tokenspeed.protocol import SAMPLING_DTYPE, decode_worker_message, encode
from dynamo_tokenspeed.worker.request import Limits, check_request
from dynamo_tokenspeed.worker.token_table import TokenTable

VOCAB_SIZE, MAX_MODEL_LEN = 50, 64
LIMITS = Limits(MAX_MODEL_LEN, TokenTable(VOCAB_SIZE, holes=frozenset({3, 7})))

integers = st.one_of(st.integers(-3, 80), st.integers(-(2**70), 2**70))
ids = st.lists(integers, max_size=60)
maybe = st.one_of(st.none(), integers)


@given(
    prompt=st.lists(st.integers(0, VOCAB_SIZE), max_size=MAX_MODEL_LEN),
    eos=ids,
    stop=st.fixed_dictionaries(
        {},
        optional={
            "max_tokens": maybe,
            "min_tokens": maybe,
            "ignore_eos": st.booleans(),
            "stop_token_ids": ids,
            "stop_token_ids_hidden": ids,
        },
    ),
    priority=maybe,
    salt=st.text(max_size=5),
    seed=maybe,
)
def test_what_the_door_lets_pass_the_scheduler_takes(
    prompt: list[int],
    eos: list[int],
    stop: dict[str, object],
    priority: int | None,
    salt: str,
    seed: int | None,
) -> None:
    request = {
        "token_ids": prompt,
        "eos_token_ids": eos,
        "stop_conditions": stop,
        "sampling_options": {"seed": seed},
        "routing": {"priority": priority, "cache_salt": salt},
    }
    try:
        accepted = check_request(request, 1, LIMITS, random.Random(0))
    except InvalidArgument:
        assume(False)
    received = decode_worker_message(encode(accepted))
    scheduler = ts_scheduler.Scheduler(
        ts_scheduler.SchedulerConfig(
            page_size=4,
            num_pages=MAX_MODEL_LEN // 4,
            max_num_seqs=2,
            max_model_len=MAX_MODEL_LEN,
            max_num_batched_tokens=32,
            chunked_prefill_size=16,
            vocab_size=VOCAB_SIZE,
            params_size=SAMPLING_DTYPE.itemsize,
        )
    )

    submit(scheduler, received)

    assert scheduler.stats().waiting == 1
