# SPDX-License-Identifier: MIT
"""The public functions choose a backend, and refuse bad arguments with one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import ts_kernels as tk
from ts_kernels.conformance import CASES, Case, Maker, assert_near


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_public_function_computes_what_reference_computes(case: Case) -> None:
    sizes = {name: min(high, 6) for name, (_, high) in case.ranges.items()}
    reference = tk.bind("cpu", torch.float32, dict.fromkeys(tk.OP_NAMES, "reference"))
    public = getattr(tk, case.op)(*case.make(Maker(torch.float32, "cpu", 0), sizes))
    expected = getattr(reference, case.op)(*case.make(Maker(torch.float32, "cpu", 0), sizes))
    for actual, wanted in zip(_tuple(public), _tuple(expected), strict=True):
        if wanted is not None:
            assert_near(actual, wanted, 2e-5)


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


X = torch.zeros(3, 8)
HALF = X.bfloat16()
LONG = torch.zeros(3, dtype=torch.int64)
INT32 = torch.ones(2, dtype=torch.int32)
KV = torch.zeros(4, 2, 8)
TABLE = torch.zeros(2, 2, dtype=torch.int32)
START = torch.tensor([0, 1, 3], dtype=torch.int32)
PAIRS = torch.zeros(3, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: tk.embedding(INT32, X), "ids is int32, but must be int64"),
        (lambda: tk.linear(X, torch.zeros(4, 7)), "weight is [4, 7], but must be [any, 8]"),
        (lambda: tk.linear(X, HALF), "weight is bfloat16, but must be float32"),
        (lambda: tk.linear(X, X, torch.zeros(4)), "bias is [4], but must be [3]"),
        (
            lambda: tk.head_linear(X.view(3, 2, 4), torch.zeros(3, 5, 4)),
            "weight is [3, 5, 4], but must be [2, any, 4]",
        ),
        (lambda: tk.rms_norm(X, torch.zeros(7), 1e-6), "weight is [7], but must be [8]"),
        (
            lambda: tk.add_rms_norm(X, HALF, torch.zeros(8), 1e-6),
            "residual is bfloat16, but must be float32",
        ),
        (
            lambda: tk.silu_and_mul(torch.zeros(2, 3)),
            "gate_up has 3 columns, but must have an even number",
        ),
        (
            lambda: tk.rope_interleaved(X.view(3, 2, 4), torch.zeros(3).long(), X),
            "cos_sin is [3, 8], but must be [any, 4]",
        ),
        (
            lambda: tk.mla_cache_write(
                *(KV, X[:, :6], X[:, :3], X[0, :6], X[:, :3], LONG, LONG), eps=1e-6
            ),
            "rope_key is [3, 3], but must be [3, 2]",
        ),
        (
            lambda: tk.mla_decode(torch.zeros(2, 1, 4, 7), KV, TABLE, INT32, INT32, 1.0, 6),
            "q is [2, 1, 4, 7], but must be [any, any, any, 8]",
        ),
        (
            lambda: tk.mla_decode(torch.zeros(2, 1, 4, 8), KV, TABLE, INT32, INT32.long(), 1.0, 6),
            "context_lens is int64, but must be int32",
        ),
        (
            lambda: tk.mla_decode(torch.zeros(2, 1, 4, 8), KV, TABLE, INT32, INT32, 1.0, 9),
            "kv_lora_rank is 9, but kv is 8 wide",
        ),
        (
            lambda: tk.mla_decode(torch.zeros(2, 1, 4, 8), KV, TABLE, START, INT32, 1.0, 6),
            "slots is [3], but must be [2]",
        ),
        (
            lambda: tk.mla_prefill(
                torch.zeros(3, 4, 6), KV, TABLE, INT32, START, INT32, torch.zeros(4, 3, 6), 1.0
            ),
            "q is 6 wide, kv 8 and w_kv_b [4, 3, 6]: they do not agree on kv_lora_rank, rope_dim, "
            "nope and v",
        ),
        (
            lambda: tk.moe_route(X, torch.zeros(8), 2, 3, 1, True, 1.0),
            "8 experts do not divide into 3 groups of two or more",
        ),
        (
            lambda: tk.moe_route(X, torch.zeros(8), 5, 4, 2, True, 1.0),
            "cannot choose 5 experts from 2 of 4 groups of 2",
        ),
        (
            lambda: tk.moe_experts(
                X, torch.zeros(2, 6, 8), torch.zeros(2, 8, 4), torch.zeros(3, 2), PAIRS
            ),
            "w_down is [2, 8, 4], but must be [2, 8, 3]",
        ),
        (lambda: tk.sample(HALF, tk.SamplingRows()), "logits is bfloat16, but must be float32"),
        (
            lambda: tk.token_logprobs(X, torch.zeros(3).long(), 9),
            "k is 9, but must be between 0 and the vocabulary's 8",
        ),
    ],
)
def test_a_bad_argument_is_one_sentence(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == sentence


def test_router_and_head_keep_the_fp32_sum_of_bf16_factors() -> None:
    x, weight = torch.randn(3, 64).bfloat16(), torch.randn(5, 64).bfloat16()
    exact = (x.double() @ weight.double().T).float()
    assert_near(tk.linear(x, weight, out_dtype=torch.float32), exact, 1e-6)


def test_equal_router_scores_choose_the_lower_ids() -> None:
    _, ids = tk.moe_route(torch.zeros(2, 8), torch.zeros(8), 3, 4, 2, True, 1.0)
    assert ids.tolist() == [[0, 1, 2], [0, 1, 2]]
