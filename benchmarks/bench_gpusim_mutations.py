# SPDX-License-Identifier: MIT
"""Which dropped and altered synchronisations of tokenspeed-mla's decode the software GPU notices.

Every mbarrier wait, arrive, expect_tx, init, every commit, named barrier, fence and `tcgen05.wait`
of the unmodified kernel's PTX is dropped or altered, one at a time, in every way that
`ts_gpusim.mutations` knows, and the kernel is run on several problems. What is noticed on none of
them is explained by what the original instruction orders.

    python benchmarks/bench_gpusim_mutations.py [--every N] [--save]
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import ts_gpusim
from results import save
from tokenspeed_mla.mla_decode import tokenspeed_mla_decode
from tokenspeed_mla.utils import get_num_sm
from ts_gpusim.launch import Launch
from ts_gpusim.memory import MemoryMap
from ts_gpusim.mutations.mutators import Mutation, mutations
from ts_gpusim.mutations.trial import REASONS, Trial, Verdict
from ts_gpusim.ptx.parser import parse

LATENT, ROPE, PAGE, HEADS, TILE = 512, 64, 64, 128, 128
DTYPES = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
# Keys of each request. The first problem has some tiles for the one cluster, so that buffers are
# used again; the others have code executed that the first has not, and more tiles.
PROBLEMS = {
    "bf16": [(640,), (97, 700)],
    "fp8": [(512,), (97, 700)],
}
SEEDS = (1, 2)
DOCUMENT = Path(__file__).parent.parent / "docs" / "gpusim_mutations.md"


@dataclass
class Decode:
    """The kernel's launch, and all memory that it writes."""

    launch: Launch
    memory: MemoryMap
    written: list[torch.Tensor]

    @classmethod
    def captured(cls, dtype: torch.dtype, lengths: tuple[int, ...]) -> Decode:
        generator = torch.Generator().manual_seed(0)
        # A multiple of a tile's pages: the fp8 kernel reads whole tiles of the table.
        each = -(-max(lengths) // TILE) * TILE // PAGE
        pages = each * len(lengths)
        query = torch.randn(len(lengths), 1, HEADS, LATENT + ROPE, generator=generator).to(dtype)
        cache = torch.randn(pages, PAGE, LATENT + ROPE, generator=generator).to(dtype)
        table = torch.randperm(pages, generator=generator).view(len(lengths), each).int()
        workspace = torch.zeros(1 << 22, dtype=torch.int8)
        calls: list[tuple[Launch, MemoryMap]] = []
        machine = ts_gpusim.Machine(collect=True)

        def record(launch: Launch, memory: MemoryMap) -> None:
            calls.append((launch, memory))
            machine(launch, memory)

        with ts_gpusim.device("sm_100a", sms=2, execute=record):
            get_num_sm.cache_clear()
            out = tokenspeed_mla_decode(
                query,
                cache,
                workspace,
                LATENT,
                ROPE,
                table,
                torch.tensor(lengths, dtype=torch.int32),
                max(lengths),
                (LATENT + ROPE) ** -0.5,
            )
        launch, memory = calls[0]
        return cls(launch, memory, [out, workspace])

    def trial(self) -> Trial:
        return Trial(self.launch, self.memory, self.clear, self.snapshot, SEEDS)

    def clear(self) -> None:
        for tensor in self.written:
            tensor.zero_()

    def snapshot(self) -> list[bytes]:
        return [tensor.view(torch.uint8).numpy().tobytes() for tensor in self.written]


class Trials:
    """Of one kernel on all its problems."""

    def __init__(self, name: str) -> None:
        decodes = [Decode.captured(DTYPES[name], lengths) for lengths in PROBLEMS[name]]
        assert len({decode.launch.ptx for decode in decodes}) == 1, "one kernel for all problems"
        self.first, *self.others = [decode.trial() for decode in decodes]

    def mutations(self) -> list[Mutation]:
        return self.first.mutations()

    def judge(self, mutation: Mutation) -> Verdict:
        """On the first problem where it is noticed; else what says most of the reasons."""
        verdict = self.first.judge(mutation)
        for trial in self.others:
            if verdict.noticed:
                break
            verdict = min(verdict, trial.judge(mutation), key=rank)
        return verdict


def rank(verdict: Verdict) -> int:
    """Those that say most come first: of something that did happen, then of all that did not."""
    order = [
        "unexplained",
        "masked",
        "replaced",
        "equivalent",
        "unneeded",
        "redundant",
        "not executed",
    ]
    return -1 if verdict.noticed else order.index(verdict.why)


_trials: dict[str, Trials] = {}


def number_of_mutations(name: str) -> int:
    """Tried or not."""
    launch = Decode.captured(DTYPES[name], PROBLEMS[name][0]).launch
    return sum(1 for _ in mutations(parse(launch.ptx).kernels[launch.kernel]))


def judge(name: str, begin: int, step: int) -> list[Verdict]:
    """Of every `step`th mutation from `begin` on. In a process of its own."""
    if name not in _trials:
        _trials[name] = Trials(name)
    chosen = _trials[name].mutations()[begin::step]
    return [_trials[name].judge(mutation) for mutation in chosen]


def counts(verdicts: Iterable[Verdict]) -> dict[str, dict[str, int]]:
    """By operation and change, then by outcome."""
    found: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        mutation = verdict.mutation
        outcome = "+".join(verdict.noticed) or verdict.why
        found.setdefault(f"{mutation.operation}, {mutation.change}", Counter())[outcome] += 1
    return {key: dict(value) for key, value in sorted(found.items())}


def described(verdict: Verdict) -> dict[str, Any]:
    """Of one that is not noticed; the source file without the path of its package."""
    instruction = verdict.instruction
    return {
        "ptx_line": instruction.line,
        "source": re.sub(r".*/", "", str(instruction.location)),
        "instruction": instruction.name,
        "operation": verdict.mutation.operation,
        "change": verdict.mutation.change,
        "why": verdict.why,
        "detail": verdict.detail,
    }


def table(found: dict[str, list[Verdict]]) -> str:
    verdicts = [verdict for of_kernel in found.values() for verdict in of_kernel]
    columns = ["noticed", *REASONS]
    lines = ["| | | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) + 1)]
    by: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        key = f"{verdict.mutation.operation}: {verdict.mutation.change}"
        by.setdefault(key, Counter())["noticed" if verdict.noticed else verdict.why] += 1
    total: Counter[str] = Counter()
    for key, outcomes in sorted(by.items()):
        total.update(outcomes)
        numbers = " | ".join(str(outcomes[column] or "") for column in columns)
        lines.append(f"| {key} | {sum(outcomes.values())} | {numbers} |")
    numbers = " | ".join(f"**{total[column]}**" for column in columns)
    lines.append(f"| **all** | **{sum(total.values())}** | {numbers} |")
    return "\n".join(lines)


def document(found: dict[str, list[Verdict]], totals: dict[str, int]) -> str:
    tried = " and ".join(
        f"{len(verdicts)} of the {totals[name]} mutations of the {name} kernel"
        for name, verdicts in found.items()
    )
    text = f"""# Dropped and altered synchronisations that nothing notices

`python benchmarks/bench_gpusim_mutations.py --save` wrote this, for `tokenspeed-mla` 2.0.4's decode
kernels. Problems (keys of each request): {PROBLEMS["bf16"]} in bf16, {PROBLEMS["fp8"]} in fp8, each
run with the seeds {SEEDS}. A mutation is noticed if the machine finds something in the mutant that
it does not find in the kernel. Tried here: {tried}. The other columns:

"""
    text += "\n".join(f"- *{reason}*: {meaning}." for reason, meaning in REASONS.items())
    text += "\n\n" + table(found) + "\n"
    for name, verdicts in found.items():
        text += f"\n## {name}\n\n| source | instruction, PTX line | change | why |\n"
        text += "| --- | --- | --- | --- |\n"
        rows: dict[tuple[str, str, str], list[str]] = {}
        for verdict in verdicts:
            if verdict.noticed or verdict.why == "not executed":
                continue
            one = described(verdict)
            where = f"`{one['instruction']}`, {one['ptx_line']}"
            why = f"{one['why']}: {one['detail']}" if one["detail"] else one["why"]
            rows.setdefault((one["source"], where, why), []).append(one["change"])
        for (source, where, why), changes in rows.items():
            text += f"| {source} | {where} | {', '.join(changes)} | {why} |\n"
        idle = sorted({v.instruction.line for v in verdicts if v.why == "not executed"})
        text += f"\nNot executed on any of the problems, PTX lines: {', '.join(map(str, idle))}.\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="try only every Nth mutation")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/ and docs/")
    arguments = parser.parse_args()
    parts = 8 * arguments.processes
    found: dict[str, list[Verdict]] = {}
    with ProcessPoolExecutor(arguments.processes) as pool:
        running = {
            name: [
                pool.submit(judge, name, part * arguments.every, parts * arguments.every)
                for part in range(parts)
            ]
            for name in PROBLEMS
        }
        for name, futures in running.items():
            verdicts = [verdict for future in futures for verdict in future.result()]
            found[name] = sorted(verdicts, key=lambda v: (v.mutation.at, v.mutation.change))
    print(table(found))
    for verdicts in found.values():
        for verdict in verdicts:
            if verdict.why == "unexplained":
                print(verdict)
    if arguments.save:
        save_all(found)


def save_all(found: dict[str, list[Verdict]]) -> None:
    totals = {name: number_of_mutations(name) for name in found}
    numbers = {
        name: {
            "tried": len(verdicts),
            "mutations": totals[name],
            "counts": counts(verdicts),
            "unnoticed": [described(verdict) for verdict in verdicts if not verdict.noticed],
        }
        for name, verdicts in found.items()
    }
    save("gpusim_mutations", numbers)
    DOCUMENT.write_text(document(found, totals))


if __name__ == "__main__":
    main()
