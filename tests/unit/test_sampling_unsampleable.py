# SPDX-License-Identifier: MIT
"""A row without a token to choose says so, and costs the rows beside it nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sampling_records import biased, records
from ts_kernels import UNSAMPLEABLE, SamplingRows, default_registry

SAMPLERS = [
    pytest.param(i.function, id=i.backend) for i in default_registry().implementations("sample")
]
WAYS = [
    pytest.param({}, id="greedy"),
    pytest.param({"temperature": 1.0}, id="drawing"),
    pytest.param({"temperature": 0.7, "top_k": 3}, id="top_k"),
    pytest.param({"temperature": 0.7, "top_p": 0.5, "min_p": 0.1}, id="top_p"),
]
VOCAB = 40
LARGEST_UNIFORM = 1 - 2.0**-53


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param([-math.inf] * VOCAB, id="all_banned"),
        pytest.param([math.nan] * VOCAB, id="all_nan"),
        pytest.param([0.0] * (VOCAB - 1) + [math.nan], id="one_nan"),
        pytest.param([math.nan] + [9.0] * (VOCAB - 1), id="one_nan_first"),
        pytest.param([0.0] * (VOCAB - 1) + [math.inf], id="infinite"),
    ],
)
def test_a_row_without_a_largest_finite_logit_has_no_token(
    sample: Any, way: dict[str, float], spoilt: list[float]
) -> None:
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(0))
    rows = SamplingRows.of(records(3, seed=5, **way), np.arange(3))
    alone = sample(logits, rows)
    logits[1] = torch.tensor(spoilt)

    chosen = sample(logits, rows)

    assert chosen[1] == UNSAMPLEABLE
    assert chosen[[0, 2]].tolist() == alone[[0, 2]].tolist()


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize("way", WAYS)
def test_banning_every_token_leaves_none(sample: Any, way: dict[str, float]) -> None:
    bias = biased([0] * VOCAB, list(range(VOCAB)), [-math.inf] * VOCAB)
    rows = SamplingRows.of(records(2, **way), np.arange(2), bias=bias)

    chosen = sample(torch.zeros(2, VOCAB), rows)

    assert chosen[0] == UNSAMPLEABLE
    assert chosen[1] >= 0


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("last", [0, 1, VOCAB - 1])
def test_what_is_left_after_banning_is_chosen(
    sample: Any, way: dict[str, float], last: int
) -> None:
    banned = [token for token in range(VOCAB) if token != last]
    bias = biased([0] * len(banned), banned, [-math.inf] * len(banned))
    rows = SamplingRows.of(records(1, seed=3, **way), np.array([4]), bias=bias)

    assert sample(torch.zeros(1, VOCAB), rows).tolist() == [last]


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize("vocab", range(1, 70))
def test_the_largest_random_number_draws_a_token_that_is_not_banned(
    sample: Any, vocab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ts_kernels.sampling_rows.uniform", lambda seed, position: np.full(1, LARGEST_UNIFORM)
    )
    bias = biased([0], [vocab], [-math.inf])
    rows = SamplingRows.of(records(1, temperature=1.0), np.array([0]), bias=bias)

    assert sample(torch.zeros(1, vocab + 1), rows).tolist() == [vocab - 1]
