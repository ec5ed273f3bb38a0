# SPDX-License-Identifier: MIT
"""Synchronisations of tokenspeed-mla's decode kernels, dropped and altered: each is noticed by what
should notice it, or is on the committed list of those that order nothing.

One mutation of every kind; `benchmarks/bench_gpusim_mutations.py` tries all and wrote the list.
"""

from __future__ import annotations

import json

import pytest
from bench_gpusim_mutations import PROBLEMS, Trials, described
from results import RESULTS
from ts_gpusim.mutations.mutators import Mutation
from ts_gpusim.mutations.trial import REASONS

# What a mutation of each operation may lead to. Besides the order itself (race) and the phases of
# barriers: threads that wait for ever, and what follows from going on too early.
TOO_EARLY = {"race", "mbarrier", "uninitialised", "unfinished", "tensor-memory"}
KINDS = {
    "mbarrier init": {"deadlock", "mbarrier"} | TOO_EARLY,
    "mbarrier init fence": {"mbarrier"},
    "cluster barrier": {"mbarrier", "deadlock", "race"},
    "mbarrier wait": {"deadlock", "out-of-bounds"} | TOO_EARLY,
    "mbarrier arrive": {"deadlock"} | TOO_EARLY,
    "mbarrier arrive of copies": {"deadlock"} | TOO_EARLY,
    "expect_tx": {"deadlock"} | TOO_EARLY,
    "commit": {"deadlock"} | TOO_EARLY,
    "named barrier": {"deadlock", "barrier"} | TOO_EARLY,
    "proxy fence": {"race"},
    "tcgen05.wait": {"race", "unfinished"},
}


def one_of_each_kind(mutations: list[Mutation]) -> list[Mutation]:
    """From the whole kernel, not all from its beginning."""
    by_kind: dict[tuple[str, str], list[Mutation]] = {}
    for mutation in mutations:
        by_kind.setdefault((mutation.operation, mutation.change), []).append(mutation)
    return [same[7 * number % len(same)] for number, same in enumerate(by_kind.values())]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", PROBLEMS)
def test_a_mutation_is_noticed_or_known_to_change_no_order(kernel: str) -> None:
    results = json.loads((RESULTS / "gpusim_mutations.json").read_text())
    known = {
        (one["ptx_line"], one["operation"], one["change"]): one["why"]
        for one in results[kernel]["unnoticed"]
    }
    trials = Trials(kernel)
    for mutation in one_of_each_kind(trials.mutations()):
        verdict = trials.judge(mutation)
        place = (verdict.instruction.line, mutation.operation, mutation.change)
        assert bool(verdict.noticed) == (place not in known), str(verdict)
        assert set(verdict.noticed) <= KINDS[mutation.operation], str(verdict)
        if not verdict.noticed:
            assert described(verdict)["why"] == known[place]


@pytest.mark.parametrize("kernel", PROBLEMS)
def test_no_unnoticed_mutation_is_without_an_explanation(kernel: str) -> None:
    results = json.loads((RESULTS / "gpusim_mutations.json").read_text())
    whys = {one["why"] for one in results[kernel]["unnoticed"]}
    assert whys <= set(REASONS) - {"unexplained"}
