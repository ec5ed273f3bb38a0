# SPDX-License-Identifier: MIT
"""The registry chooses the best implementation that can serve, and says why."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ts_kernels import (
    OP_NAMES,
    BackendUnavailable,
    Implementation,
    NoImplementation,
    Registry,
    Spec,
    bind,
    select,
)
from ts_kernels.plugins import load_backends

CPU = Spec("cpu", torch.float32)


def function(*arguments: Any) -> str:
    return "called"


def registry(*implementations: Implementation) -> Registry:
    made = Registry()
    for implementation in implementations:
        made.register(implementation)
    return made


def test_the_highest_priority_that_fits_is_chosen() -> None:
    found = registry(
        Implementation("norm", "slow", function, priority=-1),
        Implementation("norm", "fast", function, priority=5),
        Implementation("norm", "cuda", function, devices=frozenset({"cuda"}), priority=9),
    ).select("norm", CPU)
    assert found.implementation.backend == "fast"
    assert found.why == "highest priority that fits, 5"


def test_a_selection_says_why_each_other_candidate_was_passed_over() -> None:
    made = registry(
        Implementation("norm", "fast", function, priority=5),
        Implementation("norm", "slow", function, priority=-1),
        Implementation("norm", "cuda", function, devices=frozenset({"cuda"})),
        Implementation("norm", "vnni", function, architectures=frozenset({"avx512"})),
        Implementation("norm", "half", function, dtypes=frozenset({torch.bfloat16})),
        Implementation("norm", "paged", function, traits={"page_size": frozenset({16, 64})}),
    )
    made.mark_unavailable("native", "the extension is not built")
    assert made.select("norm", CPU).passed_over == {
        "native": "the extension is not built",
        "slow": "priority -1",
        "cuda": "runs on cuda, not on cpu",
        "vnni": "needs avx512, this device has an unknown architecture",
        "half": "computes in bfloat16, not float32",
        "paged": "needs to know page_size (it supports 16, 64)",
    }


def test_among_equals_the_first_registered_is_chosen() -> None:
    made = registry(Implementation("norm", "a", function), Implementation("norm", "b", function))
    assert made.select("norm", CPU).implementation.backend == "a"


@pytest.mark.parametrize(("page_size", "chosen"), [(16, "paged"), (32, "any")])
def test_a_trait_admits_only_its_values(page_size: int, chosen: str) -> None:
    made = registry(
        Implementation("norm", "any", function),
        Implementation(
            "norm", "paged", function, traits={"page_size": frozenset({16})}, priority=1
        ),
    )
    spec = Spec("cpu", torch.float32, traits={"page_size": page_size})
    assert made.select("norm", spec).implementation.backend == chosen


def test_an_override_beats_priority() -> None:
    made = registry(
        Implementation("norm", "fast", function, priority=5),
        Implementation("norm", "slow", function),
    )
    found = made.select("norm", CPU, backend="slow")
    assert (found.implementation.backend, found.why) == ("slow", "asked for by name")


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("cuda", "runs on cuda, not on cpu"),
        ("native", "the extension is not built"),
        ("nobody", "it does not implement norm"),
    ],
)
def test_an_override_that_cannot_serve_is_one_sentence_that_lists_what_there_is(
    backend: str, reason: str
) -> None:
    made = registry(
        Implementation("norm", "cuda", function, devices=frozenset({"cuda"})),
        Implementation("norm", "torch", function),
    )
    made.mark_unavailable("native", "the extension is not built")
    with pytest.raises(NoImplementation) as caught:
        made.select("norm", CPU, backend)
    message = str(caught.value)
    assert message.startswith(f"backend {backend} cannot serve norm: {reason}; there is ")
    assert "torch (fits)" in message
    assert "\n" not in message


def test_an_op_that_nothing_can_serve_is_refused_with_the_reasons() -> None:
    made = registry(Implementation("norm", "cuda", function, devices=frozenset({"cuda"})))
    with pytest.raises(NoImplementation, match=r"no implementation of norm fits: cuda \(runs on"):
        made.select("norm", CPU)


def test_an_unknown_op_is_refused() -> None:
    with pytest.raises(NoImplementation, match="there is no op nrom; there are norm"):
        registry(Implementation("norm", "torch", function)).select("nrom", CPU)


def test_a_backend_implements_an_op_once() -> None:
    made = registry(Implementation("norm", "torch", function))
    with pytest.raises(ValueError, match="backend torch already implements norm"):
        made.register(Implementation("norm", "torch", function))


def test_bind_hands_out_the_raw_function_of_every_op() -> None:
    ops = bind("cpu", torch.float32)
    for op in OP_NAMES:
        assert getattr(ops, op) is ops.selections[op].implementation.function


def test_bind_overrides_a_group_and_a_single_op_beats_its_group() -> None:
    ops = bind("cpu", torch.float32, {"attention": "reference", "mla_decode": "torch"})
    backends = {op: s.implementation.backend for op, s in ops.selections.items()}
    assert backends["mla_prefill"] == backends["mla_cache_write"] == "reference"
    assert backends["mla_decode"] == "torch"
    assert backends["moe_route"] != "reference"


def test_a_group_override_takes_the_ops_that_its_backend_implements() -> None:
    made = Registry()
    load_backends(made)
    made.register(Implementation("mla_decode", "elsewhere", function))
    ops = bind("cpu", torch.float32, {"attention": "elsewhere"}, registry=made)
    assert ops.selections["mla_decode"].implementation.backend == "elsewhere"
    assert ops.selections["mla_prefill"].implementation.backend != "elsewhere"


@pytest.mark.parametrize("overrides", [{"atention": "torch"}, {"attention": "nobody"}])
def test_bind_refuses_what_does_not_exist(overrides: dict[str, str]) -> None:
    with pytest.raises(NoImplementation, match=r"there (is|are) "):
        bind("cpu", torch.float32, overrides)


def test_select_uses_the_backends_of_this_installation() -> None:
    assert select("rms_norm", CPU, "torch").implementation.backend == "torch"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a distribution appear whose entry point `elsewhere` is this module's source."""

    def install(source: str) -> None:
        (tmp_path / "elsewhere_kernels.py").write_text(source)
        metadata = tmp_path / "elsewhere_kernels-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Name: elsewhere-kernels\nVersion: 1.0\n")
        entry_points = "[ts_kernels.plugins]\nelsewhere = elsewhere_kernels:register\n"
        (metadata / "entry_points.txt").write_text(entry_points)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "elsewhere_kernels", raising=False)

    return install


def test_a_plugin_of_another_distribution_registers_and_is_chosen(
    installed: Callable[[str], None],
) -> None:
    installed(
        "from ts_kernels import Implementation\n"
        "def rms_norm(x, weight, eps): return 'from elsewhere'\n"
        "def register(registry):\n"
        "    registry.register(Implementation('rms_norm', 'elsewhere', rms_norm, priority=99))\n"
    )
    made = Registry()
    load_backends(made)
    assert bind("cpu", torch.float32, registry=made).rms_norm(1, 2, 3) == "from elsewhere"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_library_that_is_not_here\n", "No module named 'a_library_that_is_not_here'"),
        (
            "from ts_kernels import BackendUnavailable\n"
            "def register(registry): raise BackendUnavailable('needs a GPU')\n",
            "needs a GPU",
        ),
        ("def register(registry): 1 / 0\n", "it failed to register: ZeroDivisionError"),
    ],
)
def test_a_plugin_that_fails_is_unavailable_with_the_reason_and_harms_no_other(
    installed: Callable[[str], None], source: str, reason: str
) -> None:
    installed(source)
    made = Registry()
    load_backends(made)
    assert reason in made.unavailable["elsewhere"]
    assert reason in made.select("rms_norm", CPU).passed_over["elsewhere"]


def test_a_backend_says_why_it_is_unavailable() -> None:
    assert issubclass(BackendUnavailable, ImportError)
