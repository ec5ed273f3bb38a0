# SPDX-License-Identifier: MIT
"""The torch backend cuts attention into tiles and blocks: the cuts must not show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ts_kernels import default_registry
from ts_kernels.conformance import CASES, check
from ts_kernels.torch import attention


@pytest.fixture
def tiny_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Budgets so small that a context of 70 tokens takes several tiles, blocks and steps."""
    for name, value in {
        "_LATENT_TILE": 24,
        "_PREFILL_TILE": 40,
        "_PREFILL_BLOCK": 24,
        "_SCORES_AT_ONCE": 400,
        "_ROUNDING": 4,
    }.items():
        monkeypatch.setattr(attention, name, value)
    yield


SIZES = {
    op: st.fixed_dictionaries({n: st.integers(*r) for n, r in CASES[op].ranges.items()})
    for op in ("mla_decode", "mla_prefill")
}


def _agrees(op: str, sizes: dict[str, int], seed: int) -> None:
    implementation = next(i for i in default_registry().implementations(op) if i.backend == "torch")
    check(implementation, CASES[op], sizes, torch.float32, seed=seed)


@pytest.mark.parametrize("op", SIZES)
def test_attention_in_many_blocks_agrees_with_reference(op: str, tiny_tiles: None) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(sizes=SIZES[op], seed=st.integers(0, 2**32))
    def agrees(sizes: dict[str, int], seed: int) -> None:
        _agrees(op, sizes, seed)

    agrees()
