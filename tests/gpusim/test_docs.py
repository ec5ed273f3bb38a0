# SPDX-License-Identifier: MIT
"""docs/gpusim.md shows what its commands print. Run as a script, this writes it there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "gpusim.md"
_BLOCK = re.compile(r"```console\n\$ (?P<command>.*)\n(?P<shown>(?:.*\n)*?)```")
_SECONDS = re.compile(r"\d+\.\d\d s$", re.MULTILINE)


def printed(command: str, folder: Path) -> str:
    """In a folder where `kernels` is the repository's. Seconds are zero, lines end in no blank."""
    program, *arguments = command.split()
    assert program == "python"
    environment = {**os.environ, "COLUMNS": "132"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    return re.sub(r" +$", "", _SECONDS.sub("0.00 s", done.stdout), flags=re.MULTILINE)


def page_with_output() -> str:
    with TemporaryDirectory() as folder:
        (Path(folder) / "kernels").symlink_to(ROOT / "kernels")

        def run(block: re.Match[str]) -> str:
            command = block["command"]
            return f"```console\n$ {command}\n{printed(command, Path(folder))}```"

        return _BLOCK.sub(run, PAGE.read_text())


def test_the_page_shows_what_its_commands_print():
    assert page_with_output() == PAGE.read_text()


def test_the_page_shows_the_examples_own_lines():
    (quoted,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert quoted in (ROOT / "kernels/gpusim/examples/scale.py").read_text()


if __name__ == "__main__":
    PAGE.write_text(page_with_output())
