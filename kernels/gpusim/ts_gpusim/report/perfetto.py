# SPDX-License-Identifier: MIT
"""The timelines in Chrome's trace event format, which https://ui.perfetto.dev opens.

A CTA is a process, a warp or an engine a thread. One microsecond of the trace is one cycle of the
cost model. What an engine works on is a slice; from its issue to its completion it is an
asynchronous event of the same name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ts_gpusim.report.schema import (
    ACTIVITIES,
    CtaTimeline,
    Engine,
    Instruction,
    LaunchRecord,
    Recording,
    RunFile,
    Span,
)

_ENGINE_THREADS = 1000  # engines come after the warps

Event = dict[str, Any]


def trace(run: RunFile) -> str:
    """ValueError if no launch was recorded."""
    recorded = [launch for launch in run.launches if launch.recording is not None]
    if not recorded:
        raise ValueError("the file has no recorded launch, so there is no timeline")
    events: list[Event] = []
    for number, launch in enumerate(recorded):
        events += _launch(number, launch)
    note = "1 us is one cycle of a cost model, no claim about time"
    return json.dumps({"traceEvents": events, "otherData": {"time": note, "arch": run.arch}})


def _launch(number: int, launch: LaunchRecord) -> Iterator[Event]:
    recording = launch.recording
    assert recording is not None
    for cta, timeline in enumerate(recording.timelines):
        process = 1000 * number + cta + 1
        name = f"{launch.kernel[:60]} CTA {timeline.index}"
        yield _name("process_name", process, 0, name)
        yield from _warps(recording, timeline, process)
        for engine_number, engine in enumerate(timeline.engines):
            thread = _ENGINE_THREADS + engine_number
            yield _name("thread_name", process, thread, engine.name)
            yield from _operations(recording, engine, process, thread)


def _warps(recording: Recording, timeline: CtaTimeline, process: int) -> Iterator[Event]:
    role_of = {warp: role.name for role in recording.roles for warp in role.warps}
    for warp, spans in enumerate(timeline.warps):
        yield _name("thread_name", process, warp + 1, f"warp {warp} ({role_of.get(warp, '')})")
        for span in spans:
            yield _span(recording, span, process, warp + 1)


def _span(recording: Recording, span: Span, process: int, thread: int) -> Event:
    activity = ACTIVITIES[span.activity]
    instruction = recording.instructions[span.instruction]
    arguments: Event = {"instruction": instruction.text, "at": _place(recording, instruction)}
    name = activity
    if span.ended_by >= 0:
        name = f"wait: {span.barrier}"
        cause = recording.instructions[span.ended_by]
        arguments["ended by"] = f"{cause.text} ({_place(recording, cause)})"
    if span.pieces > 1:
        arguments["pieces"] = span.pieces
        arguments["cycles waited"] = span.waited
    return _slice(name, activity, process, thread, span.begin, span.end, arguments)


def _operations(recording: Recording, engine: Engine, process: int, thread: int) -> Iterator[Event]:
    for number, done in enumerate(engine.operations):
        instruction = recording.instructions[done.instruction]
        name = ".".join(instruction.text.split(" ")[0].split(".")[:4])
        arguments = {
            "instruction": instruction.text,
            "at": _place(recording, instruction),
            "begun by warp": done.warp,
            "amount": done.amount,
            "operations": done.operations,
        }
        yield _slice(name, engine.name, process, thread, done.begin, done.free, arguments)
        flight = {"name": name, "cat": engine.name, "pid": process, "tid": thread}
        flight["id"] = f"{process}.{thread}.{number}"
        yield {**flight, "ph": "b", "ts": done.issued, "args": arguments}
        yield {**flight, "ph": "e", "ts": done.end, "args": {}}


def _slice(
    name: str, category: str, process: int, thread: int, begin: int, end: int, arguments: Event
) -> Event:
    times = {"ts": begin, "dur": end - begin}
    place = {"pid": process, "tid": thread}
    return {"name": name, "cat": category, "ph": "X", **times, **place, "args": arguments}


def _name(what: str, process: int, thread: int, name: str) -> Event:
    return {"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _place(recording: Recording, instruction: Instruction) -> str:
    if instruction.file < 0:
        return f"PTX line {instruction.line}"
    return f"{Path(recording.files[instruction.file]).name}:{instruction.source_line}"
