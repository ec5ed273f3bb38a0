# SPDX-License-Identifier: MIT
"""A NaN stays with its token or row: those beside it in a step come out bit for bit the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from ts_kernels import default_registry

TOKENS, SPOILT = 5, 2
NAN = torch.nan


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def paged() -> dict[str, Tensor]:
    """Each row has pages of its own; page 0 is the spoilt row's."""
    table = torch.arange(TOKENS * 3, dtype=torch.int32).view(TOKENS, 3).flip(0)
    order = [TOKENS - 1 if row == SPOILT else row for row in range(TOKENS)]
    order[TOKENS - 1] = SPOILT
    return {
        "kv": normal(TOKENS * 3, 4, 20),
        "block_table": table[order].contiguous(),
        "slots": torch.arange(TOKENS, dtype=torch.int32),
        "context_lens": torch.tensor([9, 1, 12, 6, 3], dtype=torch.int32),
    }


EXPERTS = {
    "w_gate_up": normal(4, 6, 8),
    "w_down": normal(4, 8, 3),
    "weights": normal(TOKENS, 2).abs(),
    "ids": torch.tensor([[0, 1], [2, 3], [0, 2], [3, 0], [1, 2]]),
    "num_shared": 1,
}
EXPERTS["ids"] = EXPERTS["ids"].clamp(max=2)
ROUTE = {
    "bias": normal(8),
    "top_k": 2,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}
OPS: dict[str, tuple[str, dict[str, Any]]] = {  # op: what is spoilt, and the arguments
    "linear": ("x", {"x": normal(TOKENS, 8), "weight": normal(6, 8)}),
    "head_linear": ("x", {"x": normal(TOKENS, 2, 4), "weight": normal(2, 6, 4)}),
    "rms_norm": ("x", {"x": normal(TOKENS, 8), "weight": normal(8), "eps": 1e-6}),
    "add_rms_norm": (
        "residual",
        {"x": normal(TOKENS, 8), "residual": normal(TOKENS, 8), "weight": normal(8), "eps": 1e-6},
    ),
    "silu_and_mul": ("gate_up", {"gate_up": normal(TOKENS, 8)}),
    "rope_interleaved": (
        "x",
        {"x": normal(TOKENS, 2, 4), "positions": torch.arange(TOKENS), "cos_sin": normal(9, 4)},
    ),
    "moe_route": ("logits", {"logits": normal(TOKENS, 8), **ROUTE}),
    "moe_experts": ("x", {"x": normal(TOKENS, 8), **EXPERTS}),
    "mla_decode": (
        "kv",
        {"q": normal(TOKENS, 1, 3, 20), **paged(), "scale": 1.0, "kv_lora_rank": 16},
    ),
    "mla_prefill": (
        "kv",
        {
            "q": normal(TOKENS, 3, 12),
            **paged(),
            "query_start": torch.arange(TOKENS + 1, dtype=torch.int32),
            "w_kv_b": normal(3, 14, 16),
            "scale": 1.0,
        },
    ),
}
IMPLEMENTATIONS = [
    pytest.param(i.function, op, id=f"{op}-{i.backend}")
    for op in OPS
    for i in default_registry().implementations(op)
    if not i.devices or "cpu" in i.devices
]


@pytest.mark.parametrize(("function", "op"), IMPLEMENTATIONS)
def test_a_nan_spoils_no_other_row(function: Any, op: str) -> None:
    name, arguments = OPS[op]
    before = function(**arguments)
    spoilt = arguments[name].clone()
    if name == "kv":
        spoilt[arguments["block_table"][SPOILT, 0], 1:] = NAN
    else:
        spoilt[SPOILT] = NAN
    others = [row for row in range(TOKENS) if row != SPOILT]

    after = function(**arguments | {name: spoilt})

    for have, want in zip(
        after if isinstance(after, tuple) else [after],
        before if isinstance(before, tuple) else [before],
        strict=True,
    ):
        assert torch.equal(have[others], want[others])


AT = 4  # the entry of the row's context that is no number; its five queries see 3 to 7 entries
QUERIES = torch.tensor([0, 5], dtype=torch.int32)
ONE_ROW: dict[str, Any] = {
    "kv": normal(4, 4, 20),
    "block_table": torch.tensor([[2, 0]], dtype=torch.int32),
    "slots": torch.zeros(1, dtype=torch.int32),
    "context_lens": torch.tensor([7], dtype=torch.int32),
    "scale": 1.0,
}
CAUSAL: dict[str, dict[str, Any]] = {
    "mla_decode": {"q": normal(1, 5, 3, 20), "kv_lora_rank": 16},
    "mla_prefill": {"q": normal(5, 3, 12), "query_start": QUERIES, "w_kv_b": normal(3, 14, 16)},
}


@pytest.mark.parametrize("value", [NAN, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    ("function", "op"),
    # The model gives a native decode one query a row.
    [p for p in IMPLEMENTATIONS if p.values[1] in CAUSAL and p.id != "mla_decode-native"],
)
def test_what_is_no_number_spoils_no_token_before_it(function: Any, op: str, value: float) -> None:
    """Of one row's queries those that do not see the entry: somebody may share their KV."""
    arguments = ONE_ROW | CAUSAL[op]
    before = function(**arguments).flatten(0, -3)
    spoilt = arguments["kv"].clone()
    spoilt[0, AT - 4] = value

    after = function(**arguments | {"kv": spoilt}).flatten(0, -3)

    blind = AT - 2  # query i sees 3 + i entries
    assert torch.equal(after[:blind], before[:blind])
    assert not after[blind:].isfinite().all(dim=-1).any()
