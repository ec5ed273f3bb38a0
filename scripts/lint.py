# SPDX-License-Identifier: MIT
"""Run every linter over the tree; `--fix` lets those that can rewrite files do so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTHON_CODE = ["dynamo_tokenspeed", "kernels", "scheduler_cpp", "recipes", "benchmarks", "tests"]


def tracked(*patterns: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return listed.stdout.split()


def commands(fix: bool) -> list[list[str]]:
    cpp = [
        f
        for f in tracked("*.cpp", "*.h")
        if "must_not_compile" not in f  # those are wrong on purpose
    ]
    return [
        ["ruff", "format", *([] if fix else ["--check"]), *PYTHON_CODE, "scripts"],
        ["ruff", "check", *(["--fix"] if fix else []), *PYTHON_CODE, "scripts"],
        ["mypy"],
        ["lint-imports"],
        ["clang-format", *(["-i"] if fix else ["--dry-run", "--Werror"]), *cpp],
    ]


def main() -> int:
    failed = []
    environment = os.environ | {"PYTHONPATH": "kernels:scheduler_cpp/python"}
    for command in commands(fix="--fix" in sys.argv[1:]):
        print(f"== {command[0]} {command[1] if len(command) > 1 else ''}".rstrip(), flush=True)
        program = str(BIN / command[0])
        if subprocess.run([program, *command[1:]], cwd=ROOT, env=environment).returncode:
            failed.append(command[0])
    if failed:
        print(f"lint failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
