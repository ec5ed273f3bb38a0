# SPDX-License-Identifier: MIT
"""The command line: run a script's kernels on the software GPU, report on a recorded run, or list
what the machine executes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from ts_gpusim import run_command
from ts_gpusim.decode.families import FAMILIES
from ts_gpusim.decode.tensor_cores import REFUSED_SECTIONS
from ts_gpusim.ptx.isa import FORMS
from ts_gpusim.ptx.isa.table import Section
from ts_gpusim.report import command as report_command

_DESCRIPTION = """\
A software GPU: kernels for Hopper and Blackwell, run from their PTX on a CPU.

  python -m ts_gpusim run my_kernel.py                     does it do wrong? on any machine
  python -m ts_gpusim run my_kernel.py --json run.json     and record what each warp does
  python -m ts_gpusim report run.json --html run.html      a timeline and counters to look at
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
    parser = argparse.ArgumentParser(
        prog="python -m ts_gpusim",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    run_command.add_to(commands)
    report_command.add_to(commands)
    opcodes = commands.add_parser(
        "opcodes",
        help="list the instructions that the machine executes",
        description="Lists the instructions that the machine executes, with their sections of the "
        "PTX ISA. A form of one that it does not execute is refused when the kernel is launched, "
        "with its line; no modifier is ever ignored.",
    )
    opcodes.set_defaults(command=_opcodes)
    return parser


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
