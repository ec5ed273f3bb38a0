# SPDX-License-Identifier: MIT
"""Reports for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ts_gpusim.counters import Counters
from ts_gpusim.report.compare import Row, pairs, recorded, rows
from ts_gpusim.report.figures import memory_traffic
from ts_gpusim.report.schema import Dim3, Instruction, LaunchRecord, Recording, RunFile

NO_CLAIM = "Cycles are those of a cost model (docs/gpusim.md), no claim about time."
_WAITS = 12
_LINES = 12
_LONGEST_NAME = 72


def counted(counters: Counters) -> list[str]:
    """A line for each kind of work that there was, and for global memory."""
    lines = [f"{counted_noun(counters.instructions, 'instruction')} of warps"]
    for kind, mma in counters.mma.items():
        instructions = counted_noun(mma.instructions, f"{kind} MMA")
        lines.append(f"{instructions}: {with_unit(mma.flops, 'FLOP')}")
    for memory, traffic in memory_traffic(counters).items():
        said = [f"{with_unit(size, 'B')} {what}" for what, size in traffic.items() if size]
        if said or memory == "global memory":
            lines.append(f"{memory}: {', '.join(said) or 'untouched'}")
    if counters.tma_requests:
        lines.append(counted_noun(counters.tma_requests, "TMA request"))
    return lines


def counted_noun(number: int, what: str) -> str:
    """`1 launch`, `2 launches`."""
    plural = "es" if what.endswith("ch") else "s"
    return f"{number:,} {what}{'' if number == 1 else plural}"


def with_unit(number: float, unit: str) -> str:
    """Three digits, with a decimal prefix."""
    for prefix in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return f"{number:,.3g} T{unit}"


def title(launch: LaunchRecord) -> tuple[str, str]:
    """The kernel, and how it was launched."""
    name = launch.kernel
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 3] + "..."
    shape = f"grid {_dim(launch.grid)}, block {_dim(launch.block)}"
    if launch.cluster != (1, 1, 1):
        shape += f", cluster {_dim(launch.cluster)}"
    return name, shape


def _dim(dim: Dim3) -> str:
    return "x".join(str(size) for size in dim)


def show(run: RunFile, console: Console) -> None:
    for launch in recorded(run):
        console.print(Text(", ".join(title(launch)), style="bold"))
        if launch.counters is not None:
            for line in counted(launch.counters):
                console.print(Text(f"  {line}"))
        for problem in launch.problems:
            console.print(Text(f"  WRONG ({problem.times} times): {problem.sentence}", "red"))
        if launch.recording is not None:
            _show_recording(launch.recording, console)
        console.print()
    console.print(Text(NO_CLAIM, style="dim"))


def _show_recording(recording: Recording, console: Console) -> None:
    busy = ", ".join(f"{name} {share:.0%}" for name, share in recording.engine_busy.items())
    console.print(Text(f"  {recording.cycles:,} cycles, busy: {busy or 'no engine'}"))
    roles = _table("role", "instructions", "busy", "waiting")
    for role in recording.roles:
        spent = sum(role.busy.values())
        share = role.waiting / max(role.waiting + spent, 1)
        instructions = f"{role.instructions:,}"
        roles.add_row(role.name, instructions, f"{spent:,}", f"{role.waiting:,} ({share:.0%})")
    console.print(roles)
    waits = _table("waits of", "times", "cycles", "at", "for", "ended by")
    for wait in recording.waits[:_WAITS]:
        waits.add_row(
            recording.roles[wait.role].name,
            f"{wait.times:,}",
            f"{wait.cycles:,}",
            _place(recording, recording.instructions[wait.instruction]),
            wait.barrier,
            _place(recording, recording.instructions[wait.ended_by]),
        )
    if recording.waits:
        console.print(waits)
    lines = _table("line", "executed", "")
    for (place, code), count in list(_hot_lines(recording).items())[:_LINES]:
        lines.add_row(place, f"{count:,}", Text(code))
    console.print(lines)


def _table(*columns: str) -> Table:
    """Numbers, which are in the columns after the first, are on the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    numbers = ("instructions", "busy", "waiting", "times", "cycles", "executed", "A", "B", "B / A")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", no_wrap=True)
    return table


def _hot_lines(recording: Recording) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for instruction in recording.instructions:
        code = recording.code.get(f"{instruction.file}:{instruction.source_line}", "")
        key = (_place(recording, instruction), code or instruction.text)
        counts[key] = counts.get(key, 0) + sum(instruction.executed)
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _place(recording: Recording, instruction: Instruction) -> str:
    if instruction.file < 0:
        return f"PTX line {instruction.line}"
    return f"{Path(recording.files[instruction.file]).name}:{instruction.source_line}"


def show_comparison(first: RunFile, second: RunFile, console: Console) -> None:
    for one, other in pairs(first, second):
        for letter, launch in (("A", one), ("B", other)):
            console.print(Text(f"{letter}: {', '.join(title(launch))}", style="bold"))
        table = _table("", "A", "B", "B / A")
        section = ""
        for row in rows(one, other):
            if row.section != section:
                section = row.section
                table.add_row(Text(section, style="bold"), "", "", "")
            table.add_row(f"  {row.name}", *_cells(row))
        console.print(table)
        console.print()
    console.print(Text(NO_CLAIM, style="dim"))


def _cells(row: Row) -> list[str]:
    cells = []
    for value in (row.first, row.second):
        if value is None:
            cells.append("-")
        elif row.unit == "%":
            cells.append(f"{value:.1f} %")
        elif row.unit in ("B", "FLOP"):
            cells.append(with_unit(value, row.unit))
        else:
            cells.append(f"{value:,.0f}")
    return [*cells, "" if row.ratio is None else f"{row.ratio:.2f}x"]
