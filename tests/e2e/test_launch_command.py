# SPDX-License-Identifier: MIT
"""`python -m dynamo_tokenspeed.launch`: what it prints, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dynamo_tokenspeed.launch import loopback

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = RECIPES / "tiny-kimi" / "agg.yaml"
KIMI = RECIPES / "kimi-k2.5" / "agg.yaml"
COMMAND = (sys.executable, "-m", "dynamo_tokenspeed.launch")


class Running:
    """A launcher that runs, and what it has printed so far."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def wait_for(self, text: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert self.process.poll() is None and time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def wait(self, seconds: float = 120) -> int:
        """Its exit code, once all that it printed is there."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code

    def descendants(self) -> set[int]:
        """Every process below it: frontend, workers, engine processes."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                parents[int(stat.parent.name)] = int(fields[1])
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found - {self.process.pid}


@pytest.fixture
def launch():
    running: list[Running] = []

    def launch(*arguments: str | Path) -> Running:
        running.append(Running(*arguments))
        return running[-1]

    yield launch
    for launcher in running:
        launcher.process.kill()
        launcher.process.wait()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def left_of(pids: set[int], seconds: float = 10) -> set[int]:
    """Those of `pids` that still run after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while (alive := {pid for pid in pids if is_alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def test_what_serve_prints_can_be_tried_and_ctrl_c_ends_everything(launch) -> None:
    serve = launch("serve", TINY, "--workers", "1")
    serve.wait_for("Ctrl-C stops everything")
    started = serve.descendants()
    curl = re.search(r"curl -N (\S+) -H .*?-d '(.*?)'$", serve.output, re.S | re.M)
    assert curl is not None, serve.output
    answer = loopback.post_json(curl[1], json.loads(curl[2]) | {"stream": False})
    serve.process.send_signal(signal.SIGINT)
    assert answer["choices"][0]["message"]["content"]
    assert serve.wait(30) == 0
    assert serve.output.endswith("stopped\n")
    assert len(started) >= 3  # frontend, worker, engine process
    assert left_of(started, seconds=0) == set()


def test_sigterm_ends_serve_and_everything_it_started(launch) -> None:
    serve = launch("serve", TINY, "--workers", "1")
    serve.wait_for("Ctrl-C stops everything")
    started = serve.descendants()
    serve.process.terminate()
    assert serve.wait(30) == 0
    assert left_of(started, seconds=0) == set()


def test_ctrl_c_while_starting_leaves_nothing(launch) -> None:
    serve = launch("serve", TINY)
    while len(started := serve.descendants()) < 3:
        time.sleep(0.01)
    serve.process.send_signal(signal.SIGINT)
    assert serve.wait(30) == 0
    assert left_of(started) == set()


def test_kill_9_of_the_launcher_leaves_nothing(launch, tmp_path: Path) -> None:
    serve = launch("serve", TINY, "--workers", "1", "--run-dir", tmp_path)
    serve.wait_for("Ctrl-C stops everything")
    started = serve.descendants()
    serve.process.kill()
    assert left_of(started) == set()


def test_a_worker_that_dies_ends_serve_which_names_it(launch, tmp_path: Path) -> None:
    serve = launch("serve", TINY, "--workers", "1", "--run-dir", tmp_path)
    serve.wait_for("Ctrl-C stops everything")
    started = serve.descendants()
    pid = re.search(r"agg-0 serves \(process (\d+)\)", serve.output)
    assert pid is not None
    os.kill(int(pid[1]), signal.SIGKILL)
    assert serve.wait(30) == 1
    assert "error: agg-0 died of signal 9 while it should serve" in serve.output
    assert left_of(started) == set()


def test_a_flag_that_cannot_be_honoured_is_named_in_one_sentence(launch, tmp_path: Path) -> None:
    serve = launch("serve", KIMI, "--run-dir", tmp_path)
    assert serve.wait(30) == 1
    said = serve.output[serve.output.index("error: ") :].splitlines()
    assert said[0].startswith("error: agg-0 exited with code 2 before it was ready.")
    refused = [word for word in said[1].split() if word.startswith("--")]
    assert refused and refused[0].removeprefix("--") in KIMI.read_text()
    assert "Traceback" not in serve.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("serve", "none.yaml"), "error: there is no recipe none.yaml\n"),
        (("serve", TINY, "--workers", "0"), "'0' is no number of workers; give 1 or more\n"),
        (("serve", TINY, "--model", "none"), "there is no directory none\n"),
        (("demo", "none.yaml"), "error: there is no recipe none.yaml\n"),
        (("manifest", "none.yaml"), "error: there is no recipe none.yaml\n"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_in_a_sentence(launch, arguments, told) -> None:
    launcher = launch(*arguments)
    assert launcher.wait(10) != 0
    assert launcher.output.endswith(told)


def test_a_port_in_use_is_told_in_a_sentence(launch, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((loopback.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        serve = launch("serve", TINY, "--port", str(port), "--run-dir", tmp_path)
        assert serve.wait(10) == 1
    assert f"error: port {port} of 127.0.0.1 is in use; choose another with --port" in serve.output


@pytest.mark.slow
def test_the_demo_compares_both_ways_of_routing_and_leaves_nothing(launch) -> None:
    demo = launch("demo", TINY)
    demo.wait_for("routed by KV cache")
    started = demo.descendants()
    assert demo.wait(180) == 0
    rows = re.findall(r"^ ([A-D][1-4]) +([\d,]+) +(agg-[01]) +([\d,]+)", demo.output, re.M)
    assert [row[0] for row in rows] == [f"{session}{turn}" for session in "ABCD" for turn in "1234"]
    later = [int(row[3].replace(",", "")) for row in rows if row[0][1] != "1"]
    assert min(later) > 0  # at least the system prompt was found
    assert re.search(r"KV-aware routing computed [\d,]+ of [\d,]+ prompt\s+tokens", demo.output)
    assert left_of(started, seconds=0) == set()


def test_ctrl_c_ends_the_demo_and_everything_it_started(launch) -> None:
    demo = launch("demo", TINY)
    demo.wait_for("[A1]")
    started = demo.descendants()
    demo.process.send_signal(signal.SIGINT)
    assert demo.wait(30) == 130
    assert "Traceback" not in demo.output
    assert left_of(started, seconds=0) == set()
