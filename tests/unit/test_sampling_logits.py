# SPDX-License-Identifier: MIT
"""What changes logits before the choice (bias, bans, penalties), and the log-probabilities."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_records import biased, counted, records
from ts_kernels import SamplingRows, default_registry

NEAR = {"rtol": 1e-6, "atol": 3e-6}  # of fp32 against fp64


def implementations(op: str) -> list[Any]:
    return [pytest.param(i.function, id=i.backend) for i in default_registry().implementations(op)]


def by_hand(
    logits: list[float], prompt: list[int], generated: list[int], record: Any
) -> list[float]:
    """The penalties' definition: vLLM's `apply_all_penalties`, one token at a time."""
    out = list(logits)
    for token in set(prompt + generated):
        factor = float(record["repetition_penalty"])
        out[token] = out[token] / factor if out[token] > 0 else out[token] * factor
    for token, count in Counter(generated).items():
        out[token] -= float(record["frequency_penalty"]) * count
        out[token] -= float(record["presence_penalty"])
    return out


@pytest.mark.parametrize("sample", implementations("sample"))
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_penalties_choose_what_their_definition_chooses(
    sample: Any, data: st.DataObject, seed: int
) -> None:
    rows = data.draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 12, generator=generator)
    table = torch.randint(12, (6, 10), generator=generator)
    total = np.array([data.draw(st.integers(0, 10)) for _ in range(6)])
    prompt = np.array([data.draw(st.integers(0, int(n))) for n in total])
    slot = np.array(data.draw(st.permutations(range(6)))[:rows])
    penalty = st.sampled_from([0.0, 0.7, -0.6])
    batch = records(
        rows,
        presence_penalty=[data.draw(penalty) for _ in range(rows)],
        frequency_penalty=[data.draw(penalty) for _ in range(rows)],
        repetition_penalty=[data.draw(st.sampled_from([1.0, 1.9, 0.6])) for _ in range(rows)],
    )
    counts = counted(table, prompt, total, 12)
    made = SamplingRows.of(batch, total[slot], counts=counts, slot=slot)
    expected = []
    for row, of in enumerate(slot):
        tokens = table[of].tolist()
        prompt_tokens, generated = tokens[: prompt[of]], tokens[prompt[of] : total[of]]
        expected.append(by_hand(logits[row].tolist(), prompt_tokens, generated, batch[row]))
    assert sample(logits, made).tolist() == np.argmax(expected, axis=1).tolist()


def test_a_penalty_without_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="a penalty needs to know what was seen"):
        SamplingRows.of(records(1, presence_penalty=1.0), np.array([2]))


@pytest.mark.parametrize("sample", implementations("sample"))
def test_a_bias_is_added_to_its_row_alone_and_adds_up(sample: Any) -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    made = SamplingRows.of(records(2), np.arange(2), bias=biased([1, 1], [2, 2], [0.6, 0.6]))
    assert sample(logits, made).tolist() == [0, 2]


@pytest.mark.parametrize("sample", implementations("sample"))
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_banned_token_is_never_chosen(sample: Any, temperature: float) -> None:
    n = 300
    logits = torch.tensor([[9.0, 0.0, 0.0]]).repeat(n, 1)
    bans = biased(list(range(n)), [0] * n, [-np.inf] * n)
    made = SamplingRows.of(records(n, temperature=temperature, top_p=0.9), np.arange(n), bias=bans)
    assert 0 not in sample(logits, made).tolist()


@pytest.mark.parametrize("token_logprobs", implementations("token_logprobs"))
def test_logprobs_are_log_softmax_of_the_models_logits(token_logprobs: Any) -> None:
    logits = torch.randn(4, 100) * 5
    ids = torch.tensor([3, 99, 0, 50])
    chosen, top_ids, top = token_logprobs(logits, ids, 5)
    exact = torch.log_softmax(logits.double(), dim=-1)
    torch.testing.assert_close(chosen.double(), exact.gather(1, ids[:, None])[:, 0], **NEAR)
    torch.testing.assert_close(top.double(), exact.topk(5).values, **NEAR)
    assert torch.equal(top_ids, exact.topk(5).indices)


@pytest.mark.parametrize("token_logprobs", implementations("token_logprobs"))
def test_logprobs_are_finite_where_a_logit_is_not(token_logprobs: Any) -> None:
    logits = torch.tensor([[0.0, -torch.inf, -1e30]])
    chosen, _, top = token_logprobs(logits, torch.tensor([1]), 3)
    assert chosen.tolist() == [-9999.0]
    assert top.tolist() == [[0.0, -9999.0, -9999.0]]


@pytest.mark.parametrize("token_logprobs", implementations("token_logprobs"))
def test_no_alternatives_are_an_empty_table(token_logprobs: Any) -> None:
    _, top_ids, top = token_logprobs(torch.zeros(2, 7), torch.tensor([0, 1]), 0)
    assert top_ids.shape == top.shape == (2, 0)
