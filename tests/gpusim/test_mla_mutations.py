# SPDX-License-Identifier: MIT
"""Every synchronisation of our MLA decode kernel, dropped and altered: it is noticed, or it is
known why it orders nothing.

On a problem in which all buffers are used again, and one with several rows, which end within tiles,
are shared by two CTAs, and have maxima that grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import ts_gpusim
from gpusim_mla import LATENT, Input, random_input
from ts_gpusim.launch import Launch
from ts_gpusim.memory import MemoryMap
from ts_gpusim.mutations.trial import Trial
from ts_kernels.cutedsl import mla_decode
from ts_kernels.cutedsl.mla import workspace_size

HEADS, SEEDS = 16, (1, 2)
# Why a mutation need not be noticed: the machine's reasons, each from what the instruction taught.
HARMLESS = {"equivalent", "redundant", "replaced", "unneeded", "not executed"}
NOT_ASKED_FOR = "tcgen05.fence"  # by the machine (gpusim's README); the PTX ISA asks for it


def trial(given: Input, ctas: int) -> Trial:
    rows = len(given.context_lens)
    out = torch.zeros(rows, 1, HEADS, LATENT, dtype=torch.bfloat16)
    written: Sequence[torch.Tensor] = (
        out,
        torch.zeros(rows, 1, HEADS),
        torch.zeros(workspace_size(HEADS, 1, ctas)),
    )
    machine = ts_gpusim.Machine()
    calls: list[tuple[Launch, MemoryMap]] = []

    def record(launch: Launch, memory: MemoryMap) -> None:
        calls.append((launch, memory))
        machine(launch, memory)

    with ts_gpusim.device("sm_100a", sms=2, execute=record):
        mla_decode(*given.arguments, out=out, lse=written[1], workspace=written[2], ctas=ctas)

    def clear() -> None:
        for tensor in written:
            tensor.zero_()

    def snapshot() -> list[bytes]:
        return [tensor.view(torch.uint8).numpy().tobytes() for tensor in written]

    return Trial(*calls[0], clear, snapshot, SEEDS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dropped_or_altered_synchronisation_is_noticed_or_orders_nothing():
    first = trial(random_input(HEADS, 1, 64, (500,)), 1)
    second = trial(replace(random_input(HEADS, 1, 64, (97, 300, 65, 700)), scale=1.0), 2)
    mutations = first.mutations()
    noticed = 0
    for mutation in mutations:
        verdicts = [first.judge(mutation)]
        if not verdicts[0].noticed:
            verdicts.append(second.judge(mutation))
        if any(verdict.noticed for verdict in verdicts):
            noticed += 1
        elif mutation.operation != NOT_ASKED_FOR:
            assert all(verdict.why in HARMLESS for verdict in verdicts), str(verdicts[-1])
    assert noticed > 0.8 * len(mutations)
