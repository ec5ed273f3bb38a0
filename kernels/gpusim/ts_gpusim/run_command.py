# SPDX-License-Identifier: MIT
"""`python -m ts_gpusim run`: a script's kernels on the software GPU, launch by launch."""

from __future__ import annotations

import argparse
import re
import runpy
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ts_gpusim.device import device
from ts_gpusim.faults import Fault, Finding, LaunchError
from ts_gpusim.launch import Launch
from ts_gpusim.machine import Machine
from ts_gpusim.memory import MemoryMap
from ts_gpusim.properties import device_properties
from ts_gpusim.ptx.errors import PtxError
from ts_gpusim.report import schema
from ts_gpusim.report.text import counted, counted_noun, title

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_DESCRIPTION = """\
Runs a Python script whose CuTe DSL kernels (and ts_gpusim.launch_ptx) execute on the software GPU,
on CPU tensors. The script needs no change: leave out .cuda(), and compare results as you always do.

For each launch it prints what the kernel did, and what it did wrong: accesses out of bounds or
misaligned, memory read before it was written, races, deadlocks with what each warp waits for,
tensor memory that leaks. The exit code is 1 if a kernel did wrong or the script failed.
"""
_EXAMPLES = """\
examples:
  python -m ts_gpusim run my_kernel.py
  python -m ts_gpusim run my_gemm.py --arch sm_90a --seeds 20
  python -m ts_gpusim run my_kernel.py --json run.json --ctas 0,16 -- --my-own-option 3
  python -m ts_gpusim report run.json --html run.html

A seed chooses the order of all that may happen in several orders: which warp goes on, when a copy
or an MMA completes. A kernel that is right is right for every seed; try some. With --json the
script runs once more, before them: recorded, in the order of a cost model's time. With --json alone
that is the only run.
"""


def add_to(commands: Commands) -> None:
    run = commands.add_parser(
        "run",
        help="run a Python script's kernels and report on each launch",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        usage="%(prog)s script.py [options] [-- arguments of the script]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("script", type=Path, help="the Python script")
    run.add_argument("--arch", default="sm_100a", help="sm_90a, sm_100a (default) or sm_103a")
    run.add_argument("--sms", type=int, help="SMs that kernels see; the product's own without it")
    seeds = run.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, help="run once, with this seed (default 0)")
    seeds.add_argument("--seeds", type=int, metavar="N", help="run N times, with seeds 0 to N-1")
    run.add_argument("--json", type=Path, metavar="FILE", help="record, for `report FILE`")
    run.add_argument(
        "--ctas",
        type=_ctas,
        default=range(4),
        metavar="LIST",
        help="CTAs to draw, such as 0-3,16, numbered with x fastest (default 0-3)",
    )
    run.set_defaults(command=run_scripts)


def _ctas(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match is None:
            raise argparse.ArgumentTypeError(f"`{text}` is no list of CTAs such as 0-3,16")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


class _Reporter:
    """The machine, with a report on each launch when it has ended."""

    def __init__(self, machine: Machine) -> None:
        self.launched: list[schema.LaunchRecord] = []
        self._machine = machine

    def __call__(self, launch: Launch, memory: MemoryMap) -> None:
        begin = time.monotonic()
        runs = len(self._machine.runs)
        problems: list[schema.Problem] = []
        recording = None
        try:
            self._machine(launch, memory)
        except Fault as fault:
            problems += _problems(fault.before)
            sentence = str(fault).removeprefix(f"{fault.kind}: ")
            problems.append(schema.Problem(fault.kind, sentence, 1))
            recording = fault.recording
            raise
        finally:
            counters = None
            if ended := len(self._machine.runs) > runs:
                run = self._machine.runs[-1]
                counters, recording = run.counters, run.recording
                problems += _problems(run.findings)
            if ended or problems:
                done = schema.LaunchRecord(
                    kernel=launch.kernel,
                    grid=launch.grid,
                    block=launch.block,
                    cluster=launch.cluster,
                    dynamic_shared_bytes=launch.shared_bytes,
                    seed=None if self._machine.record else self._machine.seed,
                    seconds=round(time.monotonic() - begin, 3),
                    counters=counters,
                    problems=problems,
                    recording=recording,
                )
                self.launched.append(done)
                print(_report(len(self.launched), done), flush=True)


def _problems(findings: Iterable[Finding]) -> list[schema.Problem]:
    return [schema.Problem(found.kind, found.told, found.times) for found in findings]


def run_scripts(given: argparse.Namespace) -> int:
    if refused := _refused(given):
        print(refused, file=sys.stderr)
        return 2
    launched: list[schema.LaunchRecord] = []
    failed = False
    machines = _machines(given)
    for machine in machines:
        if len(machines) > 1:
            print("recorded" if machine.record else f"seed {machine.seed}")
        reporter = _Reporter(machine)
        failed |= not _run_script(given, reporter)
        launched += reporter.launched
    if given.json is not None:
        _write(given, launched)
    wrong = [done for done in launched if done.problems]
    if wrong:
        runs = dict.fromkeys("recorded" if d.seed is None else str(d.seed) for d in wrong)
        print(f"{len(wrong)} of {counted_noun(len(launched), 'launch')} did wrong", end=" ")
        print(f"(seeds: {', '.join(runs)})")
    elif not failed:
        print(f"{counted_noun(len(launched), 'launch')}: nothing wrong was found")
    return 1 if wrong or failed else 0


def _refused(given: argparse.Namespace) -> str | None:
    """What is wrong with the options, if something is."""
    if not given.script.is_file():
        return f"{given.script} is no file"
    if given.json is not None and not given.json.parent.is_dir():
        return f"--json {given.json}: there is no folder {given.json.parent}"
    if given.seeds is not None and given.seeds < 1:
        return f"--seeds {given.seeds}: run the script at least once"
    if given.seed is not None and not 0 <= given.seed < 1 << 64:
        return f"--seed {given.seed}: a seed is between 0 and 2**64 - 1"
    try:
        device_properties(given.arch, given.sms)
    except ValueError as reason:
        return f"--arch {given.arch}: {reason}" if given.sms is None else str(reason)
    return None


def _machines(given: argparse.Namespace) -> list[Machine]:
    """One for each run of the script."""
    machines = []
    if given.json is not None:
        machines.append(Machine(collect=True, record=True, ctas=given.ctas))
    if given.seeds is not None:
        machines += [Machine(seed, collect=True) for seed in range(given.seeds)]
    elif given.seed is not None or not machines:
        machines.append(Machine(given.seed or 0, collect=True))
    return machines


def _write(given: argparse.Namespace, launched: list[schema.LaunchRecord]) -> None:
    sms = device_properties(given.arch, given.sms).sms
    run = schema.RunFile(
        version=schema.VERSION,
        script=given.script.name,
        arch=given.arch,
        sms=sms,
        launches=launched,
    )
    schema.write(given.json, run)
    print(f"recorded: python -m ts_gpusim report {given.json} --html {given.json.stem}.html")


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


def _report(number: int, done: schema.LaunchRecord) -> str:
    name, shape = title(done)
    lines = [f"launch {number}: {name}", f"  {shape}, {done.seconds:.2f} s"]
    if done.counters is not None:
        lines += [f"  {line}" for line in counted(done.counters)]
    for problem in done.problems:
        times = f" ({problem.times} times)" if problem.times > 1 else ""
        first, *others = f"{problem.kind}{times}: {problem.sentence}".splitlines()
        lines += [f"  WRONG: {first}", *(f"    {line}" for line in others)]
    return "\n".join(lines)
