# SPDX-License-Identifier: MIT
"""A worker that cannot start says so in one line that names the flag and the way out."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dynamo_environments import NEWEST, OLDEST, dynamo_environment

from dynamo_tokenspeed.launch import loopback
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint

SECONDS = 5.0  # the promise, held to in CPU time: this machine may be busy with others
PATIENCE = 60.0


@dataclass(frozen=True)
class Ended:
    """How a worker that could not start ended."""

    code: int
    seconds: float  # of CPU, its engine process included
    stderr: str

    @property
    def sentence(self) -> str:
        """The reason: the last line, and nowhere else; all lines before it are a log's."""
        *log, last = self.stderr.splitlines()
        assert all(map(is_log, log)), log
        assert self.stderr.count(last.removeprefix("dynamo.tokenspeed: ")) == 1, self.stderr
        return last


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("setup") / "model", vocab_size=300)


@pytest.fixture
def start(tmp_path: Path):
    """`start(flags...)`: a worker that ends by itself, under either Dynamo."""

    def run(*flags: str | Path, version: str = NEWEST, **env: str) -> Ended:
        planes = {
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(tmp_path / "discovery"),
            "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
            "DYN_SYSTEM_HOST": loopback.HOST,
            "DYN_SYSTEM_PORT": str(loopback.free_port()),
            "TMPDIR": str(tmp_path),
        }
        began, used = time.monotonic(), children_cpu_seconds()
        ended = subprocess.run(
            [dynamo_environment(version).python, "-m", "dynamo.tokenspeed", *map(str, flags)],
            env=os.environ | planes | env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        print(f"{time.monotonic() - began:.1f} s", ended.stderr)
        assert "Traceback" not in ended.stderr + ended.stdout
        return Ended(ended.returncode, children_cpu_seconds() - used, ended.stderr)

    return run


def is_log(line: str) -> bool:
    """A line of Dynamo's or the engine's log: they begin with the year."""
    return re.match(r"20\d\d-", line) is not None


def children_cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind((loopback.HOST, loopback.free_port()))
        taken.listen()
        yield taken.getsockname()[1]


def copy_of(checkpoint: Path, folder: Path) -> Path:
    return Path(shutil.copytree(checkpoint, folder / "copy"))


@pytest.mark.parametrize("version", [NEWEST, OLDEST])
def test_a_model_that_is_not_there(start, version: str) -> None:
    ended = start("--model", "/no/such/model", version=version)

    assert ended.code != 0
    assert "--model /no/such/model" in ended.sentence
    assert "give a directory" in ended.sentence
    assert ended.seconds < SECONDS


def test_no_model_at_all(start) -> None:
    assert "--model is missing" in start().sentence


def test_an_architecture_that_is_not_served(start, checkpoint: Path, tmp_path: Path) -> None:
    model = copy_of(checkpoint, tmp_path)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"architectures": ["GPT2LMHeadModel"]}))

    ended = start("--model", model)

    assert ended.code != 0
    assert "GPT2LMHeadModel" in ended.sentence
    assert "DeepseekV3ForCausalLM" in ended.sentence
    assert ended.seconds < SECONDS


@pytest.mark.parametrize("version", [NEWEST, OLDEST])
def test_weights_that_are_cut_short(start, checkpoint: Path, tmp_path: Path, version: str) -> None:
    model = copy_of(checkpoint, tmp_path)
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)

    ended = start("--model", model, version=version)

    assert ended.code != 0
    assert "model.safetensors" in ended.sentence
    assert ended.seconds < SECONDS


def test_no_memory_for_one_sequence(start, checkpoint: Path) -> None:
    ended = start("--model", checkpoint, "--kv-cache-memory", "64KiB")

    assert ended.code != 0
    assert "--kv-cache-memory" in ended.sentence
    assert "--max-model-len" in ended.sentence
    assert ended.seconds < SECONDS


def test_too_few_pages_for_one_sequence(start, checkpoint: Path, tmp_path: Path) -> None:
    ended = start("--model", checkpoint, "--num-pages", "4")

    assert ended.code != 0
    assert "--num-pages 4" in ended.sentence
    assert ended.seconds < SECONDS
    left = [path.name for path in tmp_path.iterdir() if path.name != "discovery"]
    assert left == []


@pytest.mark.parametrize("version", [NEWEST, OLDEST])
def test_a_system_port_in_use(start, checkpoint: Path, busy_port: int, version: str) -> None:
    ended = start("--model", checkpoint, version=version, DYN_SYSTEM_PORT=str(busy_port))

    assert ended.code != 0
    assert f"DYN_SYSTEM_PORT {busy_port}" in ended.sentence
    assert ended.seconds < SECONDS


@pytest.mark.parametrize("port", ["40000", "70000", "-2", "web", "80.5"])
@pytest.mark.parametrize("version", [NEWEST, OLDEST])
def test_a_system_port_that_dynamo_cannot_read(
    start, checkpoint: Path, port: str, version: str
) -> None:
    ended = start("--model", checkpoint, version=version, DYN_SYSTEM_PORT=port)

    assert ended.code == 2
    assert f"DYN_SYSTEM_PORT is '{port}'" in ended.sentence
    assert "32767" in ended.sentence
    assert "-1 for no system server" in ended.sentence


@pytest.mark.parametrize("level", ["error", "warn", "debug"])
def test_the_reason_stands_at_every_log_level(start, checkpoint: Path, level: str) -> None:
    ended = start("--model", checkpoint, "--num-pages", "4", DYN_LOG=level)

    assert ended.code == 1
    assert "--num-pages 4" in ended.sentence


def test_a_kv_event_port_in_use(start, checkpoint: Path, busy_port: int) -> None:
    endpoint = f"tcp://127.0.0.1:{busy_port}"
    config = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": endpoint}

    ended = start("--model", checkpoint, "--kv-events-config", json.dumps(config))

    assert ended.code != 0
    assert "--kv-events-config" in ended.sentence
    assert endpoint in ended.sentence
    assert ended.seconds < SECONDS


def test_a_kv_event_socket_in_use(start, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "events"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()

        ended = start(
            *("--model", checkpoint),
            *("--kv-events-config", json.dumps({"endpoint": f"ipc://{path}"})),
        )

    assert ended.code != 0
    assert "--kv-events-config" in ended.sentence
    assert str(path) in ended.sentence


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num-pages", "9", "--kv-cache-memory", "1GiB"], ["--num-pages", "--kv-cache-memory"]),
        (
            ["--chunked-prefill-size", "4096", "--max-num-batched-tokens", "1024"],
            ["--chunked-prefill-size 4096", "--max-num-batched-tokens 1024"],
        ),
        (
            ["--no-enable-prefix-caching", "--kv-events-config", '{"publisher": "zmq"}'],
            ["--no-enable-prefix-caching", "--kv-events-config"],
        ),
        (["--tensor-parallel-size", "4"], ["--tensor-parallel-size 4", "leave the flag out"]),
        (["--max-num-seqs", "none"], ["--max-num-seqs", "whole number"]),
        (["--no-such-flag"], ["--no-such-flag", "--help"]),
    ],
    ids=["two sizes", "chunk above step", "events without cache", "ranks", "no number", "unknown"],
)
def test_flags_that_contradict(start, checkpoint: Path, flags: list[str], words: list[str]) -> None:
    ended = start("--model", checkpoint, *flags)

    assert ended.code != 0
    assert all(word in ended.sentence for word in words), ended.sentence
    assert ended.seconds < SECONDS


def test_help_explains_every_flag_of_ours() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "dynamo.tokenspeed", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout

    for flag in ("--model", "--max-model-len", "--kv-cache-memory", "--kv-events-config"):
        assert flag in text
    assert "env var: TS_MODEL" in text
