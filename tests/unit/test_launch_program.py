# SPDX-License-Identifier: MIT
"""Programs of the launcher: they end when they should, whatever ends the launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dynamo_tokenspeed.launch.program import Program, stop_all

SLEEP = "import time; time.sleep(60)"
# Writes its child's pid, which it does not stop.
PARENT = (
    "import subprocess, sys, time; "
    f"child = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); "
    "print(child.pid, flush=True); time.sleep(60)"
)
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); "


@pytest.fixture
def start(tmp_path: Path):
    programs: list[Program] = []

    def start(code: str, name: str = "program") -> Program:
        log = tmp_path / f"{name}.log"
        program = Program(name, [sys.executable, "-c", code], dict(os.environ), log)
        programs.append(program)
        return program

    yield start
    stop_all(programs, grace=0)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def ends(pid: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_running(pid)


def first_line(log: Path) -> str:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if log.exists() and "\n" in (text := log.read_text()):
            return text.splitlines()[0]
        time.sleep(0.01)
    raise AssertionError(f"nothing was written to {log}")


def test_the_log_has_what_a_program_writes(start) -> None:
    program = start("import sys; print('out', flush=True); print('err', file=sys.stderr)")
    assert program.wait(10)
    assert program.log().split() == ["out", "err"]


def test_a_running_program_has_no_return_code(start) -> None:
    assert start(SLEEP).returncode is None


def test_the_return_code_is_the_programs(start) -> None:
    program = start("raise SystemExit(7)")
    assert program.wait(10)
    assert program.returncode == 7


def test_a_signal_is_a_negative_return_code(start) -> None:
    program = start(SLEEP)
    os.kill(program.pid, signal.SIGKILL)
    assert program.wait(10)
    assert program.returncode == -signal.SIGKILL


def test_a_program_may_end_by_itself_after_sigterm(start) -> None:
    program = start(
        "import signal, sys, time; signal.signal(15, lambda *a: sys.exit(3)); "
        "print('ready', flush=True); time.sleep(60)"
    )
    first_line(program.log_path)
    stop_all([program], grace=10)
    assert program.returncode == 3


def test_a_program_that_does_not_stop_is_killed(start) -> None:
    program = start(DEAF + SLEEP)
    first_line(program.log_path)
    stop_all([program], grace=0.2)
    assert program.returncode == -signal.SIGKILL


def test_the_children_of_a_stopped_program_are_ended(start) -> None:
    program = start(PARENT)
    child = int(first_line(program.log_path))
    stop_all([program], grace=10)
    assert ends(child)


def test_the_children_of_a_program_that_died_are_ended(start) -> None:
    program = start(PARENT)
    child = int(first_line(program.log_path))
    os.kill(program.pid, signal.SIGKILL)
    assert program.wait(10)
    assert ends(child)


def test_sigterm_is_not_sent_to_the_children(start, tmp_path: Path) -> None:
    child_code = (
        "import pathlib, signal, time; "
        f"signal.signal(15, lambda *a: pathlib.Path({str(tmp_path / 'got')!r}).touch()); "
        "print('ready', flush=True); time.sleep(60)"
    )
    program = start(
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child_code!r}])"
    )
    first_line(program.log_path)
    stop_all([program], grace=10)
    assert not (tmp_path / "got").exists()


def test_stopping_twice_is_harmless(start) -> None:
    program = start(SLEEP)
    stop_all([program], grace=10)
    stop_all([program], grace=10)
    assert program.returncode is not None


def test_ctrl_c_on_the_terminal_does_not_reach_the_programs(start) -> None:
    # The terminal signals the launcher's process group, of which they are no part.
    assert os.getpgid(start(SLEEP).pid) != os.getpgid(0)


def test_a_killed_launcher_leaves_no_program(tmp_path: Path) -> None:
    log = tmp_path / "program.log"
    code = (
        "import os, sys, time; from pathlib import Path; "
        "from dynamo_tokenspeed.launch.program import Program; "
        f"p = Program('p', [sys.executable, '-c', {DEAF + SLEEP!r}], dict(os.environ), "
        f"Path({str(log)!r})); print(p.pid, flush=True); time.sleep(60)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        assert first_line(log) == "deaf"
    finally:
        launcher.kill()
        launcher.wait()
    assert ends(pid)
