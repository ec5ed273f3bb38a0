# SPDX-License-Identifier: MIT
"""`python -m ts_gpusim report`: what becomes of a recorded run."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
import ts_gpusim
from ts_gpusim.cli import main
from ts_gpusim.machine import Machine
from ts_gpusim.report import schema
from ts_gpusim.report.compare import rows

PTX = """.version 8.6
.target sm_100a
.address_size 64
.visible .entry copies(.param .u64 source)
{{
    .shared .align 128 .b8 buffer[1024];
    .shared .align 8 .b64 full;
    .reg .pred %p, %leader;
    .reg .b32 %tid, %v;
    .reg .b64 %src;
    ld.param.u64 %src, [source];
    mov.u32 %tid, %tid.x;
    setp.eq.u32 %leader, %tid, 0;
    @%leader mbarrier.init.shared.b64 [full], 1;
    bar.sync 0;
    @%leader mbarrier.arrive.expect_tx.shared.b64 _, [full], {bytes};
    @%leader cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
        [buffer], [%src], {bytes}, [full];
WAIT:
    mbarrier.try_wait.parity.shared.b64 %p, [full], 0;
    @!%p bra WAIT;
    {rest}
    ret;
}}
"""


def recorded(size: int, rest: str = "") -> schema.RunFile:
    """Of a kernel that copies so many bytes."""
    machine = Machine(collect=True, record=True)
    with ts_gpusim.device("sm_100a", execute=machine):
        ptx = PTX.format(bytes=size, rest=rest)
        source = [np.zeros(1024, np.uint32)]
        ts_gpusim.launch_ptx(ptx, "copies", (2, 1, 1), (64, 1, 1), source)
    (run,) = machine.runs
    launch = schema.LaunchRecord(
        kernel=run.launch.kernel,
        grid=run.launch.grid,
        block=run.launch.block,
        cluster=run.launch.cluster,
        dynamic_shared_bytes=0,
        seed=None,
        seconds=0.0,
        counters=run.counters,
        problems=[schema.Problem(f.kind, f.sentence, f.times) for f in run.findings],
        recording=run.recording,
    )
    return schema.RunFile(
        version=schema.VERSION, script="copies.py", arch="sm_100a", sms=148, launches=[launch]
    )


RACE = "st.shared.u32 [buffer], %tid;"  # by every thread of two warps


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    schema.write(path, recorded(512))
    return path


def test_what_is_written_is_what_is_read(file):
    assert schema.read(file) == recorded(512)


def test_the_text_says_roles_waits_and_bytes(file, capsys):
    assert main(["report", str(file)]) == 0
    out = capsys.readouterr().out
    assert "copies, grid 2x1x1, block 64x1x1" in out
    assert "global memory: 1.02 kB copied in" in out
    assert re.search(r"warps 0-1 +\d+ +\d+ +[\d,]+ \(\d+%\)", out)
    assert re.search(r"warps 0-1 +4 +[\d,]+ +PTX line 20 +mbarrier 0x[0-9a-f]+ +PTX line 17", out)
    assert "no claim about time" in out


def test_the_text_says_what_is_wrong(tmp_path, capsys):
    path = tmp_path / "run.json"
    schema.write(path, recorded(512, RACE))
    main(["report", str(path)])
    assert "WRONG (" in capsys.readouterr().out


def page(tmp_path: Path, *runs: schema.RunFile) -> tuple[str, dict]:
    """The page of these runs, and the data in it."""
    paths = []
    for number, run in enumerate(runs):
        paths.append(tmp_path / f"{number}.json")
        schema.write(paths[-1], run)
    html = tmp_path / "run.html"
    assert main(["report", *map(str, paths), "--html", str(html)]) == 0
    text = html.read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return text, json.loads(data)


def test_the_page_needs_nothing_else(tmp_path):
    text, _ = page(tmp_path, recorded(512))
    assert not re.search(r"https?://|<link|<img|@import|src=|url\(", text)
    assert not re.search(r"/\*\w+(\.\w+)?\*/", text)  # every part is in its place


def test_the_page_has_the_timelines_and_the_figures(tmp_path):
    _, data = page(tmp_path, recorded(512))
    (group,) = data["groups"]
    (launch,) = group["launches"]
    assert [t["index"] for t in launch["recording"]["timelines"]] == [[0, 0, 0], [1, 0, 0]]
    assert ["global memory", "copied in", "B", [1024]] in group["figures"]


def test_no_text_of_a_kernel_ends_the_pages_data(tmp_path):
    run = recorded(512)
    launch = msgspec.structs.replace(run.launches[0], kernel="</script><b>")
    _, data = page(tmp_path, msgspec.structs.replace(run, launches=[launch]))
    assert data["groups"][0]["launches"][0]["kernel"] == "</script><b>"


def test_two_runs_are_laid_side_by_side(tmp_path):
    _, data = page(tmp_path, recorded(256), recorded(1024))
    (group,) = data["groups"]
    assert len(group["launches"]) == 2
    assert ["global memory", "copied in", "B", [512, 2048]] in group["figures"]


def test_a_comparison_has_ratios_and_what_only_one_has():
    first, second = recorded(256).launches[0], recorded(1024, "ld.shared.u32 %v, [buffer];")
    found = {(row.section, row.name): row for row in rows(first, second.launches[0])}
    assert found["global memory", "copied in"].ratio == 4
    only = found["shared memory", "read"]
    assert (only.first, only.second, only.ratio) == (None, 2 * 64 * 4, None)


def test_two_runs_are_compared_in_text(tmp_path, capsys):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, size in zip(paths, (256, 1024), strict=True):
        schema.write(path, recorded(size))
    assert main(["report", *map(str, paths)]) == 0
    assert re.search(r"copied in +512 B +2\.05 kB +4\.00x", capsys.readouterr().out)


def test_perfetto_gets_slices_that_nest_on_named_threads(file, tmp_path):
    trace = tmp_path / "trace.json"
    assert main(["report", str(file), "--perfetto", str(trace)]) == 0
    events = json.loads(trace.read_text())["traceEvents"]
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    slices = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert set(slices) <= named
    for spans in slices.values():
        spans.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
    begun = [event["id"] for event in events if event["ph"] == "b"]
    ended = [event["id"] for event in events if event["ph"] == "e"]
    assert begun and sorted(begun) == sorted(ended) and len(set(begun)) == len(begun)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "was not written by `run --json`"),
        ('{"traceEvents": []}', "was not written by `run --json`: Object missing"),
        ('{"version": 99}', "has version 99 of the format, but this ts_gpusim reads version 1"),
        ('{"version": 1, "arch": 3}', "was not written by `run --json`: "),
    ],
)
def test_a_file_that_is_none_of_ours_gets_a_sentence(content, sentence, tmp_path, capsys):
    path = tmp_path / "wrong.json"
    if content is not None:
        path.write_text(content)
    assert main(["report", str(path)]) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (3 * ["{file}"], "3 files are given; one is shown, or two are compared"),
        (2 * ["{file}"] + ["--perfetto", "t.json"], "a trace is of one run"),
    ],
)
def test_what_cannot_be_shown_gets_a_sentence(options, sentence, file, capsys):
    assert main(["report", *(option.format(file=file) for option in options)]) == 2
    assert sentence in capsys.readouterr().err
