# SPDX-License-Identifier: MIT
"""Build the C++ and install the project into this interpreter's environment, editable.

A progress bar follows ninja's own `[k/n]` lines; on failure the whole log is printed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).resolve().parent.parent
NINJA_STEP = re.compile(r"\[(\d+)/(\d+)\] (?:Building \w+ object |Linking \w+ \S+ \S+ )?(\S+)")


def main() -> int:
    console = Console()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-v"]
    command += ["--no-build-isolation", "--no-deps", "--editable", str(ROOT)]
    log: list[str] = []
    columns = (
        TextColumn("Building the C++"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[target]}"),
    )
    with (
        Progress(*columns, console=console) as progress,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        task = progress.add_task("build", total=None, target="")
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line)
            if step := NINJA_STEP.search(line):
                done, total, target = int(step[1]), int(step[2]), Path(step[3]).name
                progress.update(task, completed=done, total=total, target=target)
    if process.returncode != 0:
        console.print("".join(log), markup=False, highlight=False)
        console.print(f"The build failed (pip exit code {process.returncode}); its log is above.")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
