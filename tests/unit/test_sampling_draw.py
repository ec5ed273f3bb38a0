# SPDX-License-Identifier: MIT
"""Drawing tokens: the right distribution, the right support, the same outcome every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_records import biased, counted, records
from ts_kernels import SamplingRows, bind, default_registry
from ts_kernels.uniform import uniform

SAMPLERS = [
    pytest.param(i.function, id=i.backend)
    for i in default_registry().implementations("sample")
    if i.backend != "reference"
]
reference = bind("cpu", torch.float32, {"sample": "reference"}).sample


def chi_square(drawn: torch.Tensor, expected: torch.Tensor) -> float:
    """Pearson's statistic of the counts of `drawn` ids against expected probabilities."""
    counts = torch.bincount(drawn, minlength=len(expected)).double()
    wanted = expected.double() * len(drawn)
    return float(((counts - wanted) ** 2 / wanted)[wanted > 0].sum())


def draws(sample: Any, logits: torch.Tensor, n: int, **columns: Any) -> torch.Tensor:
    """n tokens of one request, at n positions."""
    rows = SamplingRows.of(records(n, **columns), np.arange(n))
    return sample(logits.expand(n, -1).contiguous(), rows)


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_tokens_follow_the_softmax_of_the_scaled_logits(
    sample: Any, temperature: float, seed: int
) -> None:
    logits = torch.tensor([1.0, 0.5, 0.0, -1.0, 2.0, -0.5, 0.2, 1.5])
    drawn = draws(sample, logits, 20_000, temperature=temperature, seed=seed)
    statistic = chi_square(drawn, torch.softmax(logits / temperature, dim=0))
    assert statistic < 24.3  # 7 degrees of freedom, p = 0.001; the seeds are fixed


@pytest.mark.parametrize("sample", SAMPLERS)
def test_requests_with_neighbouring_seeds_are_independent(sample: Any) -> None:
    n, logits = 20_000, torch.zeros(20_000, 4)
    rows = SamplingRows.of(records(n, temperature=1.0, seed=np.arange(n)), np.full(n, 7))
    assert chi_square(sample(logits, rows), torch.full((4,), 0.25)) < 16.3  # 3 degrees, p = 0.001


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize(
    ("columns", "support"),
    [
        ({"top_k": 1}, [0]),
        ({"top_k": 3}, [0, 1, 2]),
        ({"top_k": -1}, [0, 1, 2, 3, 4]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.1}, [0]),
        ({"top_p": 0.39}, [0]),
        ({"top_p": 0.41}, [0, 1]),
        ({"top_p": 0.85}, [0, 1, 2]),
        ({"min_p": 0.7}, [0, 1]),
        ({"min_p": 0.24}, [0, 1, 2, 3]),
        ({"min_p": 1.0}, [0]),
        ({"top_p": 0.75}, [0, 1, 2]),
        ({"top_k": 3, "top_p": 0.75}, [0, 1]),  # 0.7 is 0.78 of the 0.9 that top_k leaves
        ({"top_k": 4, "top_p": 0.99, "min_p": 0.4}, [0, 1, 2]),
    ],
)
def test_truncation_keeps_exactly_its_support(
    sample: Any, columns: dict[str, float], support: list[int]
) -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.0999, 0.0001]).log()
    columns = {"temperature": 1.0, **columns}
    drawn = draws(sample, logits, 60_000 if 4 in support else 4_000, **columns)
    assert drawn.unique().tolist() == support


@pytest.mark.parametrize("sample", SAMPLERS)
def test_the_truncated_distribution_is_renormalised(sample: Any) -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    drawn = draws(sample, logits, 20_000, temperature=1.0, top_k=2)
    assert chi_square(drawn, torch.tensor([4 / 7, 3 / 7, 0, 0])) < 10.9  # 1 degree, p = 0.001


@pytest.mark.parametrize("sample", SAMPLERS)
def test_tokens_equal_to_the_last_kept_are_kept(sample: Any) -> None:
    logits = torch.tensor([1.0, 0.0, 0.0, 0.0, -9.0])
    assert draws(sample, logits, 2_000, temperature=1.0, top_k=2).unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("sample", SAMPLERS)
def test_more_rows_than_are_processed_at_once_agree_with_reference(sample: Any) -> None:
    rows, vocab = 9, 50_000
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(0))
    batch = records(rows, temperature=1.0, top_p=[1, 0.9, 1] * 3, seed=range(rows))
    made = SamplingRows.of(batch, np.arange(rows))
    assert sample(logits, made).tolist() == reference(logits, made).tolist()


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize("temperature", [0.0, 1e-9])
def test_no_temperature_is_greedy_and_takes_the_first_of_equals(
    sample: Any, temperature: float
) -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0]])
    rows = SamplingRows.of(records(1, temperature=temperature, top_k=3, seed=5), np.array([9]))
    assert sample(logits, rows).tolist() == [1]


@pytest.mark.parametrize("sample", SAMPLERS)
def test_a_small_temperature_over_large_logits_is_finite(sample: Any) -> None:
    logits = torch.tensor([[100.0, 99.0, -300.0]])
    rows = SamplingRows.of(records(1, temperature=2e-5, top_p=0.5), np.array([0]))
    assert sample(logits, rows).tolist() == [0]


RECORD = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**64 - 1),
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.0]),
        "top_k": st.sampled_from([0, -1, 1, 4, 40]),
        "top_p": st.sampled_from([1.0, 0.9, 0.3]),
        "min_p": st.sampled_from([0.0, 0.05, 0.5]),
        "presence_penalty": st.sampled_from([0.0, 0.5, -1.0]),
        "frequency_penalty": st.sampled_from([0.0, 0.3]),
        "repetition_penalty": st.sampled_from([1.0, 1.3, 0.8]),
    }
)


@pytest.mark.parametrize("sample", SAMPLERS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(requests=st.lists(RECORD, min_size=1, max_size=6), seed=st.integers(0, 2**32))
def test_any_mix_of_requests_agrees_with_reference_alone_and_together(
    sample: Any, requests: list[dict[str, float]], seed: int
) -> None:
    n = len(requests)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 50, generator=generator) * 2
    table = torch.randint(50, (n, 24), generator=generator)
    batch = np.concatenate([records(1, **request) for request in requests])
    position, slot = np.arange(n) + 12, np.arange(n)[::-1]
    counts = counted(table, np.arange(n) + 3, np.arange(n) + 12, 50)

    def chosen(function: Any, rows: slice) -> list[int]:
        made = SamplingRows.of(
            batch[rows],
            position[rows],
            counts=counts,
            slot=slot[rows],
        )
        ids: list[int] = function(logits[rows], made).tolist()
        return ids

    together = chosen(sample, slice(None))
    assert together == chosen(reference, slice(None))
    assert together == [chosen(sample, slice(row, row + 1))[0] for row in range(n)]


@pytest.mark.parametrize("sample", SAMPLERS)
def test_the_logits_are_not_written(sample: Any) -> None:
    logits = torch.randn(2, 20)
    before = logits.clone()
    rows = SamplingRows.of(
        records(2, temperature=1.0, top_p=0.5, presence_penalty=1.0),
        np.array([5, 5]),
        bias=biased([0], [3], [2.0]),
        counts=torch.ones(2, 20, dtype=torch.int32),
        slot=np.array([0, 1]),
    )
    sample(logits, rows)
    assert torch.equal(logits, before)


def test_rows_that_ask_for_nothing_make_an_empty_sampling() -> None:
    assert SamplingRows.of(records(3), np.arange(3)) == SamplingRows()


def test_rows_are_grouped_by_what_they_ask_for() -> None:
    batch = records(4, temperature=[0.0, 1.0, 1.0, 1.0], top_k=[5, 0, 5, 0])
    plain, truncated = SamplingRows.of(batch, np.arange(4)).draws
    assert (plain.row.tolist(), plain.truncation) == ([1, 3], None)
    assert truncated.row.tolist() == [2]
    assert truncated.truncation is not None


def test_the_uniform_number_is_splitmix64() -> None:
    """Against a plain-integer transcription of Steele, Lea and Flood's figure 16."""
    mask = 2**64 - 1

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    pairs = [(0, 0), (0, 1), (1, 0), (2**64 - 1, 131_071), (12345, 7)]
    expected = [
        (mix(mix(s) + (p + 1) * 0x9E3779B97F4A7C15 & mask) >> 11) * 2.0**-53 for s, p in pairs
    ]
    seeds, positions = zip(*pairs, strict=True)
    actual = uniform(np.array(seeds, np.uint64), np.array(positions, np.int64))
    assert actual.tolist() == expected
