# SPDX-License-Identifier: MIT
"""How many dropped synchronisations the software GPU notices in tokenspeed-mla's decode kernel.

Each mbarrier wait, arrive and expect_tx, each commit, barrier, proxy fence and `tcgen05.wait` of
the unmodified kernel's PTX is dropped, one at a time, and the kernel is run once. A drop is noticed
if the run has a fault, a race that the unmodified kernel has not, or another result. What is not
noticed happens before everything that it would order in another way as well, or is not executed:
those are counted apart, and `--list` names them.

    python benchmarks/bench_gpusim_mutations.py [--list] [--save]
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import torch
import ts_gpusim
from results import save
from tokenspeed_mla.mla_decode import tokenspeed_mla_decode
from tokenspeed_mla.utils import get_num_sm
from ts_gpusim.launch import Launch
from ts_gpusim.memory import MemoryMap
from ts_gpusim.ptx.parser import parse
from ts_gpusim.ptx.syntax import Instruction

KINDS = {
    "mbarrier.try_wait": "mbarrier wait",
    "mbarrier.arrive.expect_tx": "expect_tx",
    "mbarrier.arrive": "mbarrier arrive",
    "tcgen05.commit": "commit",
    "tcgen05.wait": "tcgen05.wait",
    "bar": "barrier",
    "fence.proxy": "proxy fence",
}
LATENT, ROPE, PAGE, HEADS = 512, 64, 64, 128
# Keys of the one sequence: some tiles for each of the two SMs, so that buffers are used again.
CASES = {"bf16": (torch.bfloat16, 640), "fp8": (torch.float8_e4m3fn, 512)}


def kind_of(instruction: Instruction) -> str | None:
    return next((kind for name, kind in KINDS.items() if instruction.name.startswith(name)), None)


@dataclass
class Decode:
    """The kernel's launch, and all memory that it writes."""

    launch: Launch
    memory: MemoryMap
    written: list[torch.Tensor]

    @classmethod
    def captured(cls, dtype: torch.dtype, keys: int) -> Decode:
        torch.manual_seed(0)
        pages = keys // PAGE
        query = torch.randn(1, 1, HEADS, LATENT + ROPE).to(dtype)
        cache = torch.randn(pages, PAGE, LATENT + ROPE).to(dtype)
        # A multiple of a tile's pages: the fp8 kernel reads whole tiles of the table.
        table = torch.randperm(pages).view(1, pages).int()
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
                torch.tensor([keys], dtype=torch.int32),
                keys,
                (LATENT + ROPE) ** -0.5,
            )
        launch, memory = calls[0]
        return cls(launch, memory, [out, workspace])

    def run(self, ptx: str) -> tuple[str, set[tuple[str, ...]], list[torch.Tensor]]:
        """The fault's kind, or nothing; the races by their PTX lines; what was written."""
        machine = ts_gpusim.Machine(seed=1, collect=True)
        fault = ""
        for tensor in self.written:
            tensor.zero_()
        try:
            machine(replace(self.launch, ptx=ptx), self.memory)
        except ts_gpusim.Fault as raised:
            fault = raised.kind
        races = {tuple(re.findall(r"PTX line (\d+)", f.sentence)) for f in machine.findings}
        return fault, races, [tensor.clone() for tensor in self.written]


def changed(ptx: str, instruction: Instruction, statement: str) -> str:
    """With `statement` in its place; `\\1` is its first operand as written."""
    lines = ptx.split("\n")
    at = instruction.line - 1
    pattern = re.escape(instruction.name) + r"\s*([^,;]*)[^;]*;"
    lines[at], count = re.subn(pattern, statement, lines[at], count=1)
    assert count == 1, f"PTX line {instruction.line} is not one statement"
    return "\n".join(lines)


def without(ptx: str, instruction: Instruction) -> str:
    if kind_of(instruction) == "mbarrier wait":
        return changed(ptx, instruction, r"setp.eq.u32 \1, 0, 0;")
    return changed(ptx, instruction, "fence.acq_rel.cta;")


def try_all(decode: Decode, names_silent: bool) -> dict[str, Counter[str]]:
    ptx = decode.launch.ptx
    _, known, right = decode.run(ptx)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for instruction in parse(ptx).kernels[decode.launch.kernel].instructions:
        kind = kind_of(instruction)
        if kind is None:
            continue
        fault, races, written = decode.run(without(ptx, instruction))
        if fault:
            outcome = "fault"
        elif races - known:
            outcome = "race"
        elif not all(map(torch.equal, written, right)):
            outcome = "wrong result"
        elif decode.run(changed(ptx, instruction, "trap;"))[0] == "trap":
            outcome = "ordered anyway"
        else:
            outcome = "not executed"
        found[kind][outcome] += 1
        if names_silent and outcome in ("ordered anyway", "not executed"):
            print(f"  {outcome}: PTX line {instruction.line}, {instruction.location}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="name what is not noticed")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    arguments = parser.parse_args()
    columns = ("fault", "race", "wrong result", "ordered anyway", "not executed")
    numbers = {}
    for name, (dtype, keys) in CASES.items():
        found = try_all(Decode.captured(dtype, keys), arguments.list)
        print(f"\n{name + ' decode':>16} {'dropped':>8}", *(f"{column:>15}" for column in columns))
        for kind, outcomes in found.items():
            counts = [outcomes[column] for column in columns]
            print(f"{kind:>16} {sum(counts):>8}", *(f"{count:>15}" for count in counts))
        numbers[name] = {kind: dict(outcomes) for kind, outcomes in found.items()}
    if arguments.save:
        save("gpusim_mutations", numbers)


if __name__ == "__main__":
    main()
