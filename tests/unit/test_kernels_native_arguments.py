# SPDX-License-Identifier: MIT
"""What would reach beyond a tensor is refused: indices by the native kernels, sizes before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("ts_kernels._native", reason="the extension module is not built")

import ts_kernels
from ts_kernels.native import attention, moe, norm, rope

X = torch.zeros(3, 8)
BF16 = X.bfloat16()
W = torch.zeros(8)
HEADS = X.view(3, 2, 4)
POSITIONS = torch.zeros(3, dtype=torch.int64)
COS_SIN = torch.zeros(5, 4)
KV = torch.zeros(4, 2, 8)
GATE_UP, DOWN = torch.zeros(4, 6, 8), torch.zeros(4, 8, 3)
WEIGHTS, IDS = torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.int64)


def experts(
    ids: Tensor = IDS, op: Callable[..., Tensor] = moe.moe_experts, **changed: Any
) -> Tensor:
    arguments = {"x": X, "w_gate_up": GATE_UP, "w_down": DOWN, "weights": WEIGHTS, "ids": ids}
    return op(**arguments | changed)


def cache_write(
    kv: Tensor = KV, op: Callable[..., None] = attention.mla_cache_write, **changed: Tensor
) -> None:
    arguments = {
        "latent": X[:, :6],
        "rope_key": X[:, :2],
        "norm_weight": W[:6],
        "cos_sin": COS_SIN[:, :2],
        "positions": POSITIONS,
        "cache_index": POSITIONS,
    }
    op(kv, **arguments | changed, eps=1e-6)


def checked_cache_write(kv: Tensor = KV, **changed: Tensor) -> None:
    cache_write(kv, ts_kernels.mla_cache_write, **changed)


def at(index: int, like: Tensor) -> Tensor:
    """Zeros, but for this index at the end."""
    indices = torch.zeros_like(like)
    indices.view(-1)[-1] = index
    return indices


@pytest.mark.parametrize("outside", [-1, 1, 2**31, -(2**63), 2**63 - 1])
@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        pytest.param(
            lambda beyond: experts(at(beyond(4), IDS)), r"ids\[5\] is {}, but", id="expert"
        ),
        pytest.param(
            lambda beyond: experts(at(beyond(3), IDS), num_shared=1),
            r"ids\[5\] is {}, but",
            id="shared_expert",
        ),
        pytest.param(
            lambda beyond: rope.rope_interleaved(HEADS, at(beyond(5), POSITIONS), COS_SIN),
            r"positions\[2\] is {}, but",
            id="position",
        ),
        pytest.param(
            lambda beyond: cache_write(cache_index=at(beyond(8), POSITIONS)),
            r"cache_index\[2\] is {}, but",
            id="cache_index",
        ),
        pytest.param(
            lambda beyond: cache_write(positions=at(beyond(5), POSITIONS)),
            r"positions\[2\] is {}, but",
            id="position_of_a_key",
        ),
    ],
)
def test_an_index_outside_its_table_is_refused(
    call: Callable[..., Any], sentence: str, outside: int
) -> None:
    asked: list[int] = []

    def beyond(end: int) -> int:
        asked.append(end if outside == 1 else outside)
        return asked[0]

    with pytest.raises(IndexError) as caught:
        call(beyond)
    assert str(caught.value).startswith(sentence.format(asked[0]).replace("\\", ""))


def test_the_last_index_of_a_table_is_taken() -> None:
    experts(at(3, IDS))
    experts(at(2, IDS), num_shared=1)
    rope.rope_interleaved(HEADS, at(4, POSITIONS), COS_SIN)
    cache_write(cache_index=at(7, POSITIONS), positions=at(4, POSITIONS))


def test_a_refused_cache_write_has_written_nothing() -> None:
    kv = torch.zeros(4, 2, 8)
    with pytest.raises(IndexError):
        cache_write(kv, latent=X[:, :6] + 1, cache_index=torch.tensor([0, 1, 8]))
    assert not kv.any()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ts_kernels.linear(X, torch.zeros(4, 7)), "weight is [4, 7], but must be [any, 8]"),
        (lambda: ts_kernels.linear(X, BF16), "weight is bfloat16, but must be float32"),
        (lambda: ts_kernels.linear(X, X, torch.zeros(4)), "bias is [4], but must be [3]"),
        (
            lambda: ts_kernels.head_linear(HEADS, torch.zeros(3, 5, 4)),
            "weight is [3, 5, 4], but must be [2, any, 4]",
        ),
        (
            lambda: ts_kernels.head_linear(HEADS, torch.zeros(2, 5, 3)),
            "weight is [2, 5, 3], but must be [2, any, 4]",
        ),
        (lambda: ts_kernels.rms_norm(X, torch.zeros(7), 1e-6), "weight is [7], but must be [8]"),
        (
            lambda: ts_kernels.rms_norm(X, W.bfloat16(), 1e-6),
            "weight is bfloat16, but must be float32",
        ),
        (
            lambda: ts_kernels.add_rms_norm(X, torch.zeros(2, 8), W, 1e-6),
            "residual is [2, 8], but must be [3, 8]",
        ),
        (
            lambda: ts_kernels.add_rms_norm(X, BF16, W, 1e-6),
            "residual is bfloat16, but must be float32",
        ),
        (
            lambda: ts_kernels.silu_and_mul(torch.zeros(2, 3)),
            "gate_up has 3 columns, but must have",
        ),
        (
            lambda: ts_kernels.rope_interleaved(HEADS, POSITIONS[:2], COS_SIN),
            "positions is [2], but must be [3]",
        ),
        (
            lambda: ts_kernels.rope_interleaved(HEADS, POSITIONS.int(), COS_SIN),
            "positions is int32, but must be int64",
        ),
        (
            lambda: ts_kernels.rope_interleaved(HEADS, POSITIONS, COS_SIN[:, :2]),
            "cos_sin is [5, 2], but must be [any, 4]",
        ),
        (
            lambda: checked_cache_write(rope_key=X[:, :3]),
            "rope_key is [3, 3], but must be [3, 2]",
        ),
        (
            lambda: checked_cache_write(cache_index=POSITIONS[:2]),
            "cache_index is [2], but must be [3]",
        ),
        (
            lambda: checked_cache_write(latent=BF16[:, :6]),
            "latent is bfloat16, but must be float32",
        ),
        (
            lambda: checked_cache_write(KV[..., ::2]),
            "kv's pages are strided [8, 2], but must be contiguous",
        ),
        (lambda: checked_cache_write(norm_weight=W), "norm_weight is [8], but must be [6]"),
        (lambda: checked_cache_write(cos_sin=COS_SIN), "cos_sin is [5, 4], but must be [any, 2]"),
        (
            lambda: checked_cache_write(positions=POSITIONS.int()),
            "positions is int32, but must be int64",
        ),
        (
            lambda: ts_kernels.moe_route(X, torch.zeros(7), 2, 4, 2, True, 1.0),
            "bias is [7], but must be [8]",
        ),
        (
            lambda: ts_kernels.moe_route(X, W, 9, 1, 1, True, 1.0),
            "cannot choose 9 experts from 1 of 1 groups of 8",
        ),
        (
            lambda: ts_kernels.moe_route(X, W, 2, 3, 1, True, 1.0),
            "8 experts do not divide into 3 groups of two or more",
        ),
        (
            lambda: ts_kernels.moe_route(X, W, 2, 4, 5, True, 1.0),
            "cannot choose 2 experts from 5 of 4 groups of 2",
        ),
        (
            lambda: experts(IDS[:2], op=ts_kernels.moe_experts),
            "ids is [2, 2], but must be [3, any]",
        ),
        (lambda: experts(IDS.int(), op=ts_kernels.moe_experts), "ids is int32, but must be int64"),
        (
            lambda: experts(weights=WEIGHTS[:2], op=ts_kernels.moe_experts),
            "weights is [2, 2], but must be [3, 2]",
        ),
        (
            lambda: experts(w_down=DOWN[:3], op=ts_kernels.moe_experts),
            "w_down is [3, 8, 3], but must be [4, 8, 3]",
        ),
        (
            lambda: experts(num_shared=5, op=ts_kernels.moe_experts),
            "num_shared is 5, but the stack has 4 experts",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value).startswith(sentence)


def apart(tensor: Tensor) -> Tensor:
    """The same values, with gaps between them."""
    wide = torch.full((*tensor.shape, 2), 77).to(tensor.dtype)
    wide[..., 0] = tensor
    return wide[..., 0]


def written(**arguments: Tensor) -> Tensor:
    kv = torch.zeros(4, 2, 8)
    cache_write(kv, **arguments)
    return kv


def integers(high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.randint(high, shape, dtype=dtype)


DECODE = {
    "q": torch.randn(2, 1, 4, 8),
    "kv": torch.randn(4, 2, 8),
    "block_table": integers(4, 3, 2, dtype=torch.int32),
    "slots": torch.tensor([2, 1], dtype=torch.int32),
    "context_lens": torch.tensor([3, 4], dtype=torch.int32),
}
PREFILL = DECODE | {
    "q": torch.randn(3, 4, 5),
    "query_start": torch.tensor([0, 1, 3], dtype=torch.int32),
    "w_kv_b": torch.randn(4, 6, 6),
}


@pytest.mark.parametrize(
    ("op", "arguments", "rest", "views"),
    [
        (
            norm.rms_norm,
            {"x": torch.randn(3, 8), "weight": torch.randn(8)},
            {"eps": 1e-6},
            ["x", "weight"],
        ),
        (
            norm.add_rms_norm,
            {"x": torch.randn(3, 8), "residual": torch.randn(3, 8), "weight": torch.randn(8)},
            {"eps": 1e-6},
            ["x", "residual", "weight"],
        ),
        (
            moe.moe_experts,
            {
                "x": torch.randn(3, 8),
                "w_gate_up": torch.randn(4, 6, 8),
                "w_down": torch.randn(4, 8, 3),
                "weights": torch.randn(3, 2),
                "ids": torch.tensor([[0, 1], [2, 3], [3, 1]]),
            },
            {},
            ["x", "w_gate_up", "w_down", "weights", "ids"],
        ),
        (
            rope.rope_interleaved,
            {
                "x": torch.randn(3, 2, 4),
                "positions": integers(5, 3),
                "cos_sin": torch.randn(5, 4),
            },
            {},
            ["x", "positions", "cos_sin"],
        ),
        (
            written,
            {
                "latent": torch.randn(3, 6),
                "rope_key": torch.randn(3, 2),
                "norm_weight": torch.randn(6),
                "cos_sin": torch.randn(5, 2),
                "positions": integers(5, 3),
                "cache_index": torch.tensor([7, 0, 3]),
            },
            {},
            ["latent", "rope_key", "norm_weight", "cos_sin", "positions", "cache_index"],
        ),
        (
            attention.mla_decode,
            DECODE,
            {"scale": 1.0, "kv_lora_rank": 6},
            ["q", "block_table", "slots", "context_lens"],
        ),
        (
            attention.mla_prefill,
            PREFILL,
            {"scale": 1.0},
            ["q", "block_table", "slots", "context_lens", "query_start", "w_kv_b"],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_arguments_with_gaps_between_their_values_are_read_right(
    op: Callable[..., Any], arguments: dict[str, Tensor], rest: dict[str, Any], views: list[str]
) -> None:
    """A copy that makes them contiguous must live until the kernel has read it."""
    expected = op(**arguments, **rest)
    actual = op(**arguments | {name: apart(arguments[name]) for name in views}, **rest)
    for have, want in zip(
        actual if isinstance(actual, tuple) else [actual],
        expected if isinstance(expected, tuple) else [expected],
        strict=True,
    ):
        assert torch.equal(have, want)
