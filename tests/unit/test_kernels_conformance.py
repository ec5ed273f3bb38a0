# SPDX-License-Identifier: MIT
"""Every implementation of every op computes what `reference` computes.

Nothing here names a backend: one that registers is tested.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ts_kernels import OP_NAMES, Implementation, Spec, default_registry
from ts_kernels.architecture import architecture_of
from ts_kernels.conformance import CASES, Case, check

DTYPES = (torch.float32, torch.bfloat16)


def _runnable(implementation: Implementation, dtype: torch.dtype) -> bool:
    """It is another backend than reference, and this machine's CPU can run it in this dtype."""
    traits = {name: next(iter(values)) for name, values in implementation.traits.items()}
    spec = Spec("cpu", dtype, architecture_of("cpu"), traits)
    return implementation.backend != "reference" and implementation.refusal(spec) is None


CONTENDERS = [
    pytest.param(case, implementation, dtype, id=f"{name}-{implementation.backend}-{dtype}")
    for name, case in CASES.items()
    for implementation in default_registry().implementations(case.op)
    for dtype in DTYPES
    if _runnable(implementation, dtype)
]


def _sizes(case: Case, implementation: Implementation) -> st.SearchStrategy[dict[str, int]]:
    """All sizes that the implementation accepts: a trait it restricts keeps to its values."""
    return st.fixed_dictionaries(
        {
            name: st.sampled_from(sorted(implementation.traits[name]))
            if name in implementation.traits
            else st.integers(*bounds)
            for name, bounds in case.ranges.items()
        }
    )


@pytest.mark.parametrize(("case", "implementation", "dtype"), CONTENDERS)
def test_an_implementation_agrees_with_reference_on_random_shapes(
    case: Case, implementation: Implementation, dtype: torch.dtype
) -> None:
    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(sizes=_sizes(case, implementation), seed=st.integers(0, 2**32))
    def agrees(sizes: dict[str, int], seed: int) -> None:
        check(implementation, case, sizes, dtype, seed=seed)

    agrees()


@pytest.mark.parametrize(("case", "implementation", "dtype"), CONTENDERS)
def test_an_implementation_agrees_with_reference_on_the_real_geometry(
    case: Case, implementation: Implementation, dtype: torch.dtype
) -> None:
    check(implementation, case, case.real, dtype)


def test_every_op_has_a_case_or_a_test_of_its_own() -> None:
    assert {case.op for case in CASES.values()} | {"sample"} == set(OP_NAMES)


@pytest.mark.parametrize("op", OP_NAMES)
def test_every_op_has_a_reference_and_a_torch_implementation(op: str) -> None:
    backends = {i.backend for i in default_registry().implementations(op)}
    assert {"reference", "torch"} <= backends
