# SPDX-License-Identifier: MIT
"""The life of a request that docs/scheduler.md shows is the one that the C++ declares."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = (ROOT / "scheduler_cpp" / "include" / "ts" / "lifecycle.h").read_text()
PAGE = (ROOT / "docs" / "scheduler.md").read_text()

# Read here by other means than the script's: every line of the table's block that declares.
BLOCK = HEADER.partition("// clang-format off")[2].partition("// clang-format on")[0]
DECLARATIONS = [re.sub(r"//.*", "", part) for part in BLOCK.split("static ")[1:]]
# A Sequence is what the states of a running request have in common.
STATES = set(re.findall(r"^class (\w+)", HEADER, re.MULTILINE)) - {"Sequence"}
ROWS = [re.findall(r"\w+", line) for line in PAGE.splitlines() if line.startswith("| `")]
EDGES = set(re.findall(r"^  (\S+) --> (\S+?)(?::|$)", PAGE, re.MULTILINE))


def states_of(declaration: str) -> list[str]:
    """The states that a declaration names: to, then from."""
    return [word for word in re.findall(r"\w+", declaration) if word in STATES]


def test_the_page_is_up_to_date() -> None:
    script = ROOT / "scripts" / "lifecycle_diagram.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_transition_of_the_header_is_drawn_and_tabled() -> None:
    assert len(DECLARATIONS) >= 10
    for declaration in DECLARATIONS:
        to, *origins = states_of(declaration)
        event = re.search(r"(\w+)\s*\(", declaration)
        assert event is not None
        assert len(origins) <= 1, declaration
        assert (origins[0] if origins else "[*]", to) in EDGES, declaration
        if origins:
            assert any(
                row[0] == origins[0] and event[1] in row and to in row[1:] for row in ROWS
            ), declaration


def test_nothing_else_is_drawn() -> None:
    declared = {tuple(reversed(states_of(part))) for part in DECLARATIONS}
    drawn = {edge for edge in EDGES if "[*]" not in edge}
    assert drawn == {pair for pair in declared if len(pair) == 2}


def test_every_state_can_end() -> None:
    can_end = {"[*]"}
    while more := {origin for origin, to in EDGES if to in can_end} - can_end:
        can_end |= more
    assert can_end >= STATES
