# SPDX-License-Identifier: MIT
"""Run every linter over the tree; `--fix` lets those that can rewrite files do so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
WARNINGS_OF_GCC = "--extra-arg=-Wno-unknown-warning-option"  # the build is made with g++
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


def clang_tidy() -> bool:
    """Run clang-tidy over every file of the newest build that is ours; True: it is clean."""
    databases = ROOT.glob("build/*/compile_commands.json")
    database = max(databases, key=lambda path: path.stat().st_mtime, default=None)
    if database is None:
        print("there is no build/*/compile_commands.json: run `make install` first")
        return False
    ours = (ROOT / "scheduler_cpp", ROOT / "kernels")
    files = [Path(entry["file"]) for entry in json.loads(database.read_text())]
    files = sorted(f for f in set(files) if any(f.is_relative_to(folder) for folder in ours))

    def check(file: Path) -> bool:
        command = [str(BIN / "clang-tidy"), "--quiet", WARNINGS_OF_GCC]
        command += ["-p", str(database.parent), str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout, done.stderr, sep="\n", flush=True)
        return done.returncode == 0

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return all(list(pool.map(check, files)))


def main() -> int:
    failed = []
    environment = os.environ | {"PYTHONPATH": "kernels:kernels/gpusim:scheduler_cpp/python"}
    for command in commands(fix="--fix" in sys.argv[1:]):
        print(f"== {command[0]} {command[1] if len(command) > 1 else ''}".rstrip(), flush=True)
        program = str(BIN / command[0])
        if subprocess.run([program, *command[1:]], cwd=ROOT, env=environment).returncode:
            failed.append(command[0])
    print("== clang-tidy", flush=True)
    if not clang_tidy():
        failed.append("clang-tidy")
    if failed:
        print(f"lint failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
