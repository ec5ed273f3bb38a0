# SPDX-License-Identifier: MIT
"""libFuzzer on the scheduler's C++ API, built by clang with ASan and UBSan.

The corpus is kept between runs (`build/scheduler-fuzz/corpus`), so a later run begins where
the one before ended. An input that fails is left beside it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "scheduler-fuzz"
SECONDS = 20


@pytest.fixture
def clang() -> str:
    path = shutil.which("clang++")
    if path is None:
        no_clang = "clang++ is not on the PATH: libFuzzer comes with it (apt-get install clang)"
        if os.environ.get("CI"):
            pytest.fail(no_clang)
        pytest.skip(no_clang)
    return path


def run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]} failed\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_any_sequence_of_calls_is_safe(clang: str) -> None:
    tools = Path(sysconfig.get_path("scripts"))  # cmake and ninja come from PyPI
    run(
        tools / "cmake",
        *("-S", ROOT / "scheduler_cpp", "-B", BUILD),
        *("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"),
        f"-DCMAKE_CXX_COMPILER={clang}",
        "-DCMAKE_BUILD_TYPE=Debug",
        "-DCMAKE_UNITY_BUILD=ON",
        "-DTS_SCHEDULER_PYTHON=OFF",
        "-DTS_FUZZ=ON",
    )
    run(tools / "cmake", "--build", BUILD, "--parallel", "2")
    corpus = BUILD / "corpus"
    corpus.mkdir(exist_ok=True)
    run(
        BUILD / "tests" / "fuzz_scheduler",
        # Short inputs are no shortcut: a configuration alone takes twenty bytes.
        *(f"-max_total_time={SECONDS}", "-max_len=1000", "-len_control=0", "-timeout=10"),
        # Not the process's peak, in which Linux counts what pytest held when it started this one.
        *("-rss_limit_mb=0", "-malloc_limit_mb=2048"),
        f"-artifact_prefix={BUILD}/",
        corpus,
    )
