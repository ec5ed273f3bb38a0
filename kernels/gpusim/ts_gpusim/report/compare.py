# SPDX-License-Identifier: MIT
"""Two launches, side by side: the same figures, and the second divided by the first."""

from __future__ import annotations

from dataclasses import dataclass

from ts_gpusim.report.figures import figures
from ts_gpusim.report.schema import LaunchRecord, RunFile


@dataclass(frozen=True)
class Row:
    """`first` and `second`: None where a launch has no such figure."""

    section: str
    name: str
    unit: str
    first: float | None
    second: float | None

    @property
    def ratio(self) -> float | None:
        return self.second / self.first if self.first and self.second is not None else None


def rows(first: LaunchRecord, second: LaunchRecord) -> list[Row]:
    """In the order of the first, then what only the second has."""
    units = {}
    values: list[dict[tuple[str, str], float]] = []
    for launch in (first, second):
        found = {}
        for figure in figures(launch):
            found[figure.section, figure.name] = figure.value
            units[figure.section, figure.name] = figure.unit
        values.append(found)
    order = {section: i for i, section in enumerate(dict.fromkeys(s for s, _ in units))}
    keys = sorted(units, key=lambda key: order[key[0]])
    return [
        Row(section, name, units[section, name], *(v.get((section, name)) for v in values))
        for section, name in keys
    ]


def pairs(first: RunFile, second: RunFile) -> list[tuple[LaunchRecord, LaunchRecord]]:
    """Recorded launches in their order, as far as both files have some; ValueError if none."""
    found = list(zip(recorded(first), recorded(second), strict=False))
    if not found:
        raise ValueError("one of the files has no recorded launch, so there is nothing to compare")
    return found


def recorded(run: RunFile) -> list[LaunchRecord]:
    """The launches with a recording; all, if none has one."""
    return [launch for launch in run.launches if launch.recording] or run.launches
