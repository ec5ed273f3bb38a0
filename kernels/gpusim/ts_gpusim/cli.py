# SPDX-License-Identifier: MIT
"""The command line: run a script's kernels on the software GPU, or list what it executes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import runpy
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ts_gpusim.decode.families import FAMILIES
from ts_gpusim.decode.tensor_cores import REFUSED_SECTIONS
from ts_gpusim.device import device
from ts_gpusim.faults import Fault, LaunchError
from ts_gpusim.launch import Dim3, Launch
from ts_gpusim.machine import Counters, Machine
from ts_gpusim.memory import MemoryMap
from ts_gpusim.properties import device_properties
from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.ptx.isa import FORMS
from ts_gpusim.ptx.isa.table import Section

_DESCRIPTION = "A software GPU: kernels for Hopper and Blackwell, run from their PTX on a CPU."
_RUN = """\
Runs a Python script whose CuTe DSL kernels (and ts_gpusim.launch_ptx) execute on the software GPU,
on CPU tensors. The script needs no change: leave out .cuda(), and compare results as you always do.

For each launch it prints what the kernel did, and what it did wrong: accesses out of bounds or
misaligned, memory read before it was written, races, deadlocks with what each warp waits for,
tensor memory that leaks. The exit code is 1 if a kernel did wrong or the script failed.
"""
_RUN_EXAMPLES = """\
examples:
  python -m ts_gpusim run my_kernel.py
  python -m ts_gpusim run my_gemm.py --arch sm_90a --seeds 20
  python -m ts_gpusim run my_kernel.py --json run.json -- --my-own-option 3

A seed chooses the order of all that may happen in several orders: which warp goes on, when a copy
or an MMA completes. A kernel that is right is right for every seed; try some.
"""


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    own, of_script = list(arguments), []
    if "--" in own:
        at = own.index("--")
        own, of_script = own[:at], own[at + 1 :]
    given = _parser().parse_args(own, argparse.Namespace(arguments=of_script))
    command: Callable[[argparse.Namespace], int] = given.command
    return command(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ts_gpusim", description=_DESCRIPTION)
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    run = commands.add_parser(
        "run",
        help="run a Python script's kernels and report on each launch",
        description=_RUN,
        epilog=_RUN_EXAMPLES,
        usage="%(prog)s script.py [options] [-- arguments of the script]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("script", type=Path, help="the Python script")
    run.add_argument("--arch", default="sm_100a", help="sm_90a, sm_100a (default) or sm_103a")
    run.add_argument("--sms", type=int, help="SMs that kernels see; the product's own without it")
    seeds = run.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, default=0, help="run once, with this seed (default 0)")
    seeds.add_argument("--seeds", type=int, metavar="N", help="run N times, with seeds 0 to N-1")
    run.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    run.set_defaults(command=_run)
    opcodes = commands.add_parser(
        "opcodes",
        help="list the instructions that the machine executes",
        description="Lists the instructions that the machine executes, with their sections of the "
        "PTX ISA. A form of one that it does not execute is refused when the kernel is launched, "
        "with its line; no modifier is ever ignored.",
    )
    opcodes.set_defaults(command=_opcodes)
    return parser


# run


@dataclasses.dataclass
class _Launched:
    launch: Launch
    seed: int
    seconds: float
    counters: Counters | None  # None: the launch ended in a fault
    problems: list[str]

    def as_json(self) -> dict[str, Any]:
        return {
            "kernel": self.launch.kernel,
            "grid": self.launch.grid,
            "block": self.launch.block,
            "cluster": self.launch.cluster,
            "dynamic_shared_bytes": self.launch.shared_bytes,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "counters": dataclasses.asdict(self.counters) if self.counters else None,
            "problems": self.problems,
        }


class _Reporter:
    """The machine, with a report on each launch when it has ended."""

    def __init__(self, seed: int) -> None:
        self.launched: list[_Launched] = []
        self._machine = Machine(seed, collect=True)

    def __call__(self, launch: Launch, memory: MemoryMap) -> None:
        begin = time.monotonic()
        done = _Launched(launch, self._machine.seed, 0, None, [])
        try:
            self._machine(launch, memory)
            done.counters = self._machine.runs[-1].counters
            done.problems = [str(finding) for finding in self._machine.runs[-1].findings]
        except Fault as fault:
            done.problems = [str(fault)]
            raise
        finally:
            done.seconds = time.monotonic() - begin
            if done.counters is not None or done.problems:
                self.launched.append(done)
                print(_report(len(self.launched), done), flush=True)


def _run(given: argparse.Namespace) -> int:
    if refused := _refused(given):
        print(refused, file=sys.stderr)
        return 2
    seeds = [given.seed] if given.seeds is None else range(given.seeds)
    launched: list[_Launched] = []
    failed = False
    for seed in seeds:
        if len(seeds) > 1:
            print(f"seed {seed}")
        reporter = _Reporter(seed)
        failed |= not _run_script(given, reporter)
        launched += reporter.launched
    wrong = [done for done in launched if done.problems]
    if given.json is not None:
        report = {"arch": given.arch, "launches": [done.as_json() for done in launched]}
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    if wrong:
        by_seed = ", ".join(str(seed) for seed in sorted({done.seed for done in wrong}))
        print(f"{len(wrong)} of {_count(len(launched), 'launch')} did wrong (seeds: {by_seed})")
    elif not failed:
        print(f"{_count(len(launched), 'launch')}: nothing wrong was found")
    return 1 if wrong or failed else 0


def _refused(given: argparse.Namespace) -> str | None:
    """What is wrong with the options, if something is."""
    if not given.script.is_file():
        return f"{given.script} is no file"
    if given.json is not None and not given.json.parent.is_dir():
        return f"--json {given.json}: there is no folder {given.json.parent}"
    if given.seeds is not None and given.seeds < 1:
        return f"--seeds {given.seeds}: run the script at least once"
    if not 0 <= given.seed < 1 << 64:
        return f"--seed {given.seed}: a seed is between 0 and 2**64 - 1"
    try:
        device_properties(given.arch, given.sms)
    except ValueError as reason:
        return f"--arch {given.arch}: {reason}" if given.sms is None else str(reason)
    return None


def _run_script(given: argparse.Namespace, reporter: _Reporter) -> bool:
    """True if it ended well. Its faults are reported already; why else it ended is, then."""
    argv = sys.argv
    path = sys.path
    sys.argv = [str(given.script), *given.arguments]
    sys.path = [str(given.script.resolve().parent), *path]
    try:
        with device(given.arch, given.sms, execute=reporter):
            runpy.run_path(str(given.script), run_name="__main__")
    except Fault:
        return False
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code in (None, 0)
    except (LaunchError, PtxError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(given.script)]
        where = f", line {lines[-1]}" if lines else ""
        print(f"{given.script}{where}: {error}", file=sys.stderr)
        return False
    except Exception as error:
        frame = error.__traceback__
        while frame is not None and frame.tb_frame.f_code.co_filename != str(given.script):
            frame = frame.tb_next  # ours, and those of runpy
        traceback.print_exception(error.with_traceback(frame or error.__traceback__))
        return False
    finally:
        sys.argv = argv
        sys.path = path
    return True


_LONGEST_NAME = 72


def _report(number: int, done: _Launched) -> str:
    name = done.launch.kernel
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 3] + "..."
    shape = f"grid {_dim(done.launch.grid)}, block {_dim(done.launch.block)}"
    if done.launch.cluster != (1, 1, 1):
        shape += f", cluster {_dim(done.launch.cluster)}"
    lines = [f"launch {number}: {name}", f"  {shape}, {done.seconds:.2f} s"]
    if done.counters is not None:
        lines += [f"  {line}" for line in _counted(done.counters)]
    for problem in done.problems:
        first, *others = problem.splitlines()
        lines += [f"  WRONG: {first}", *(f"    {line}" for line in others)]
    return "\n".join(lines)


def _counted(counters: Counters) -> list[str]:
    lines = [f"{_count(counters.instructions, 'instruction')} of warps"]
    if counters.mma_instructions:
        flops = _with_unit(counters.mma_flops, "FLOP")
        lines[0] += f"; {_count(counters.mma_instructions, 'MMA')}, {flops}"
    loaded, stored = counters.global_bytes_loaded, counters.global_bytes_stored
    lines.append(
        f"global memory: {_with_unit(loaded, 'B')} read, {_with_unit(stored, 'B')} written"
    )
    if counters.bulk_requests:
        loaded, stored = counters.bulk_bytes_loaded, counters.bulk_bytes_stored
        lines.append(
            f"{_count(counters.bulk_requests, 'bulk request')}: {_with_unit(loaded, 'B')} loaded, "
            f"{_with_unit(stored, 'B')} stored"
        )
    return lines


def _dim(dim: Dim3) -> str:
    return "x".join(str(size) for size in dim)


def _count(number: int, what: str) -> str:
    plural = "es" if what.endswith("ch") else "s"
    return f"{number:,} {what}{'' if number == 1 else plural}"


def _with_unit(number: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return f"{number:,.3g} T{unit}"


# opcodes

_EXECUTED = frozenset({*FAMILIES, "fence", "cp", "wgmma", "tcgen05"})


def _opcodes(_: argparse.Namespace) -> int:
    families: dict[str, dict[Section, None]] = {}
    for opcode, forms in FORMS.items():
        if opcode not in _EXECUTED:
            continue
        for form in forms:
            if form.section.number in REFUSED_SECTIONS:
                continue
            family = form.section.title.split(":")[0]
            families.setdefault(family, {})[form.section] = None
    for family, sections in families.items():
        print(family)
        for section in sorted(sections, key=_place):
            print(f"  {section.number:<16}{section.title.rpartition(': ')[2]}")
    return 0


def _place(section: Section) -> list[int]:
    return [int(part) for part in section.number.split(".")]
