# SPDX-License-Identifier: MIT
"""One page that needs nothing else: no server, nothing from the network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from ts_gpusim.report.compare import pairs, recorded, rows
from ts_gpusim.report.figures import figures
from ts_gpusim.report.schema import ACTIVITIES, LaunchRecord, RunFile

_PARTS = ("page.css", "page.js", "timeline.js")


def page(runs: list[RunFile], names: list[str]) -> str:
    """`runs`: one, or two to compare; `names`: of their files."""
    if len(runs) == 2:
        groups = [list(pair) for pair in pairs(*runs)]
    else:
        groups = [[launch] for launch in recorded(runs[0])]
    data = {
        "names": names,
        "archs": [run.arch for run in runs],
        "activities": ACTIVITIES,
        "groups": [_group(group) for group in groups],
    }
    text = _part("page.html")
    for part in _PARTS:
        text = text.replace(f"/*{part}*/", _part(part))
    # Nothing in the data may end the element that holds it.
    return text.replace("/*data*/", msgspec.json.encode(data).decode().replace("</", "<\\/"))


def _group(launches: list[LaunchRecord]) -> dict[str, Any]:
    if len(launches) == 2:
        table = [(r.section, r.name, r.unit, [r.first, r.second]) for r in rows(*launches)]
    else:
        table = [(f.section, f.name, f.unit, [f.value]) for f in figures(launches[0])]
    return {"launches": [_shown(launch) for launch in launches], "figures": table}


def _shown(launch: LaunchRecord) -> LaunchRecord:
    """With short names of files: where they are is not for the page's readers."""
    recording = launch.recording
    if recording is None:
        return launch
    short = [Path(file).name for file in recording.files]
    recording = msgspec.structs.replace(recording, files=short)
    return msgspec.structs.replace(launch, recording=recording)


def _part(name: str) -> str:
    return (files("ts_gpusim.report") / name).read_text()
