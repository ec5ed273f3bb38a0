# SPDX-License-Identifier: MIT
"""The tests of the scheduler are tested themselves: they notice every deliberate bug."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_deliberate_bug_makes_a_test_fail() -> None:
    script = ROOT / "scripts" / "mutation_check.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
