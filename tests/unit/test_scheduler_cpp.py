# SPDX-License-Identifier: MIT
"""The C++ tests of the scheduler, built with ASan and UBSan and run by CTest.

Among them is the simulation: 10 million events of random workloads. The output names the
seed that fails.

The build folder is kept between runs (`build/scheduler-tests`), so only what changed
is compiled again.
"""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "scheduler-tests"
LEAST_EVENTS = 10_000_000


def tool(name: str) -> Path:
    """A build tool of this environment (cmake and ninja come from PyPI)."""
    return Path(sysconfig.get_path("scripts")) / name


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]} failed\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_cpp_tests_pass_under_address_and_undefined_behaviour_sanitizers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cmake, ctest = tool("cmake"), tool("ctest")
    run(
        cmake,
        *("-S", ROOT / "scheduler_cpp", "-B", BUILD),
        *("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"),
        "-DCMAKE_BUILD_TYPE=Debug",
        "-DCMAKE_UNITY_BUILD=ON",
        "-DTS_SCHEDULER_PYTHON=OFF",
        "-DTS_SCHEDULER_TESTS=ON",
        "-DTS_SANITIZE=ON",
    )
    run(cmake, "--build", BUILD, "--parallel", "2")
    output = run(ctest, "--test-dir", BUILD, "--verbose", "--parallel", "2")
    events = sum(int(count) for count in re.findall(r"^\d+: +(\d+) events$", output, re.MULTILINE))
    with capsys.disabled():
        print(f"\n{events:,} events of the scheduler's simulation, sanitized")
    assert events >= LEAST_EVENTS
