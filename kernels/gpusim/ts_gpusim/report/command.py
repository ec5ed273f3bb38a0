# SPDX-License-Identifier: MIT
"""`python -m ts_gpusim report`: what a recorded run did, to read, to look at, to compare."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ts_gpusim.report import schema
from ts_gpusim.report.html import page
from ts_gpusim.report.perfetto import trace
from ts_gpusim.report.text import show, show_comparison

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_DESCRIPTION = """\
Shows what `run --json` recorded: what each role of warps did in which cycles, where it waited and
for whom, bytes by memory, copies, MMAs, findings. With two files it puts them side by side.

Bytes, requests, instructions and FLOP are counted. Cycles are those of a cost model (what it has
and what it leaves out: docs/gpusim.md); they show who waits for whom, not how long a GPU takes.
"""
_EXAMPLES = """\
examples:
  python -m ts_gpusim report run.json                          to read here
  python -m ts_gpusim report run.json --html run.html          one page, to look at and to send
  python -m ts_gpusim report before.json after.json --html both.html
  python -m ts_gpusim report run.json --perfetto trace.json    for https://ui.perfetto.dev
"""


_WIDTH = 132  # of a report that goes into a file


def add_to(commands: Commands) -> None:
    report = commands.add_parser(
        "report",
        help="show what `run --json` recorded, or compare two of its files",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        usage="%(prog)s run.json [other.json] [--html FILE | --perfetto FILE]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("files", nargs="+", type=Path, metavar="run.json", help="one or two")
    report.add_argument("--html", type=Path, metavar="FILE", help="write a page")
    report.add_argument("--perfetto", type=Path, metavar="FILE", help="write a trace of one run")
    report.set_defaults(command=report_on)


def report_on(given: argparse.Namespace) -> int:
    try:
        _report(given.files, given.html, given.perfetto)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _report(files: list[Path], html: Path | None, perfetto: Path | None) -> None:
    if len(files) > 2:
        raise ValueError(f"{len(files)} files are given; one is shown, or two are compared")
    if perfetto is not None and len(files) > 1:
        raise ValueError("a trace is of one run: give --perfetto one file")
    runs = [schema.read(file) for file in files]
    if html is not None:
        html.write_text(page(runs, [file.name for file in files]))
    if perfetto is not None:
        perfetto.write_text(trace(runs[0]))
    if html is None and perfetto is None:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=_WIDTH)
        if len(runs) == 1:
            show(runs[0], console)
        else:
            show_comparison(runs[0], runs[1], console)
