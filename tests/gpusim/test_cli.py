# SPDX-License-Identifier: MIT
"""`python -m ts_gpusim`: what a kernel's author sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ts_gpusim.cli import main
from ts_gpusim.decode import EXECUTED
from ts_gpusim.decode.refused import OPCODES
from ts_gpusim.ptx.isa import FORMS
from ts_gpusim.report import schema

# Each of 32 threads doubles a number; the last of them at the offset that is asked for.
SCRIPT = '''
import sys
import numpy as np
import ts_gpusim

PTX = """
.version 8.8
.target sm_100a
.address_size 64
.visible .entry double(.param .u64 data, .param .u32 shift) {
    .reg .b32 %t, %v, %s;
    .reg .b64 %a;
    mov.u32 %t, %tid.x;
    ld.param.u32 %s, [shift];
    add.u32 %t, %t, %s;
    ld.param.u64 %a, [data];
    mad.wide.u32 %a, %t, 4, %a;
    ld.global.u32 %v, [%a];
    add.u32 %v, %v, %v;
    st.global.u32 [%a], %v;
    ret;
}
"""
data = np.arange(32, dtype=np.uint32)
ts_gpusim.launch_ptx(PTX, "double", (1, 1, 1), (32, 1, 1), [data, int(sys.argv[1])])
assert (data == 2 * np.arange(32)).all()
print("checked")
'''


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "double.py"
    path.write_text(SCRIPT)
    return str(path)


def test_run_reports_on_each_launch(script, capsys):
    assert main(["run", script, "--", "0"]) == 0
    out = capsys.readouterr().out
    assert "launch 1: double\n  grid 1x1x1, block 32x1x1" in out
    assert "B read, 128 B written" in out
    assert "checked" in out
    assert out.endswith("1 launch: nothing wrong was found\n")


def test_run_shows_a_fault_and_exits_with_1(script, capsys):
    assert main(["run", script, "--", "1"]) == 1
    captured = capsys.readouterr()
    assert "WRONG: out-of-bounds: 4 bytes of global memory" in captured.out
    assert "4 bytes past the end of argument 0 [32] u32" in captured.out
    assert "`ld.global.u32 %v, [%a];`" in captured.out
    assert "PTX line 13" in captured.out
    assert "Traceback" not in captured.err


def test_run_tries_every_seed(script, capsys):
    assert main(["run", script, "--seeds", "3", "--", "0"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("seed")] == [
        "seed 0",
        "seed 1",
        "seed 2",
    ]
    assert out.endswith("3 launches: nothing wrong was found\n")


def test_run_records_for_the_report(script, tmp_path, capsys):
    file = tmp_path / "run.json"
    assert main(["run", script, "--json", str(file), "--sms", "7", "--", "0"]) == 0
    run = schema.read(file)
    (launch,) = run.launches
    assert (run.script, run.arch, run.sms) == ("double.py", "sm_100a", 7)
    assert (launch.kernel, launch.block, launch.seed) == ("double", (32, 1, 1), None)
    assert launch.counters is not None and launch.counters.global_loaded == 128
    assert launch.recording is not None
    assert f"ts_gpusim report {file}" in capsys.readouterr().out


def test_run_records_before_the_seeds_that_are_asked_for(script, tmp_path, capsys):
    file = tmp_path / "run.json"
    main(["run", script, "--json", str(file), "--seeds", "2", "--", "0"])
    assert [launch.seed for launch in schema.read(file).launches] == [None, 0, 1]


def test_run_records_until_a_fault(script, tmp_path, capsys):
    file = tmp_path / "run.json"
    assert main(["run", script, "--json", str(file), "--", "1"]) == 1
    (launch,) = schema.read(file).launches
    assert launch.counters is None
    assert launch.problems[0].kind == "out-of-bounds"
    assert launch.recording is not None and launch.recording.roles[0].instructions == 5


def test_run_draws_the_ctas_that_are_named(script, tmp_path, capsys):
    file = tmp_path / "run.json"
    main(["run", script, "--json", str(file), "--ctas", "1-2,4", "--", "0"])
    (launch,) = schema.read(file).launches
    assert launch.recording is not None and launch.recording.timelines == []  # it has one CTA


def test_a_list_of_ctas_that_is_none_is_refused(script, capsys):
    with pytest.raises(SystemExit):
        main(["run", script, "--ctas", "few"])
    assert "`few` is no list of CTAs such as 0-3,16" in capsys.readouterr().err


def test_a_script_that_fails_shows_its_own_traceback(tmp_path, capsys):
    path = tmp_path / "wrong.py"
    path.write_text("assert 1 + 1 == 3\n")
    assert main(["run", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.endswith("AssertionError\n")
    assert "runpy" not in captured.err
    assert "nothing wrong" not in captured.out


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("sm_100a", "sm_90a", "kernel double cannot be launched: it is compiled for sm_90a, and"),
        ('"double"', '"treble"', "the PTX has no kernel named 'treble'; its kernels: double"),
        ("(32, 1, 1)", "(32, 1, 2048)", "kernel double cannot be launched: block"),
        ("[data, int", "[int", "kernel double has 2 parameters (data, shift), but 1 arguments"),
        ("add.u32 %v, %v, %v", "add.u32 %w, %v, %v", "PTX line 14: `%w` is no register"),
        ("add.u32 %v, %v, %v", "add.u32.sat %v, %v, %v", "PTX line 14: `add.u32.sat"),
    ],
)
def test_a_launch_that_is_refused_ends_with_one_sentence_and_its_line(
    before, after, sentence, tmp_path, capsys
):
    path = tmp_path / "double.py"
    path.write_text(SCRIPT.replace(before, after))
    assert main(["run", str(path), "--", "0"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"{path}, line 25: {sentence}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--arch", "sm_70"], "no architecture 'sm_70'; it has sm_90a, sm_100a, sm_103a"),
        (["--sms", "0"], "sms=0, but a device has at least one SM"),
        (["--seed", "-1"], "--seed -1: a seed is between 0 and 2**64 - 1"),
        (["--seeds", "0"], "--seeds 0: run the script at least once"),
        (["--json", "nowhere/run.json"], "there is no folder nowhere"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_runs(
    options, sentence, script, capsys
):
    assert main(["run", script, *options, "--", "0"]) == 2
    captured = capsys.readouterr()
    assert captured.err.endswith(f"{sentence}\n")
    assert (captured.err.count("\n"), captured.out) == (1, "")


def test_what_a_script_exits_with_is_shown(tmp_path, capsys):
    path = tmp_path / "exits.py"
    path.write_text("raise SystemExit('no input')\n")
    assert main(["run", str(path)]) == 1
    assert capsys.readouterr().err == "no input\n"


def test_a_script_that_is_not_there_is_named(capsys):
    assert main(["run", "nowhere.py"]) == 2
    assert capsys.readouterr().err == "nowhere.py is no file\n"


def test_opcodes_lists_what_is_executed_with_its_section(capsys):
    assert main(["opcodes"]) == 0
    lines = [
        line.split() for line in capsys.readouterr().out.partition("Not executed")[0].splitlines()
    ]
    assert ["9.7.9.25.5.2", "cp.async.bulk.tensor"] in lines
    assert ["9.7.16.10.9.1", "tcgen05.mma"] in lines
    assert ["9.7.16.10.9.2", "tcgen05.mma.sp"] not in lines


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--help"], "run a Python script's kernels and report on each launch"),
        (["run", "--help"], "python -m ts_gpusim run my_gemm.py --arch sm_90a --seeds 20"),
        (["--help"], "python -m ts_gpusim report run.json --html run.html"),
        (["report", "--help"], "report before.json after.json --html both.html"),
        (["opcodes", "--help"], "Lists the instructions that the machine executes"),
    ],
)
def test_help_says_how_it_is_used(arguments, sentence):
    command = [sys.executable, "-m", "ts_gpusim", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sentence in " ".join(done.stdout.split())


def test_the_opcodes_are_either_executed_or_refused_with_a_reason(capsys):
    assert main(["opcodes"]) == 0
    executed, refused = capsys.readouterr().out.split("Not executed\n")
    assert "9.7.12.5        call" in executed
    assert "9.7.13.17       clusterlaunchcontrol.try_cancel" in executed
    assert "multimem" not in executed
    assert "multimem: it reaches several GPUs" in refused
    assert "9.7.14.5.14     mma\n" in executed
    assert "mma of single bits and of 4-bit integers" in refused
    assert "9.7.14.6.3      mma.sp\n" in refused
    assert set(FORMS) == EXECUTED | set(OPCODES) & set(FORMS)
