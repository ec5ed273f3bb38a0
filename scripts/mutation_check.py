# SPDX-License-Identifier: MIT
"""Check the tests of the scheduler: each deliberate bug must make at least one of them fail.

The bugs are in scheduler_cpp/tests/mutations.toml; `mutation_check.py WORD...` tries those whose
description has one of the words. A copy is built once, with the internal checks and without
sanitizers, and rebuilt for every bug; the tests run, the shortest first, until one fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "scheduler_cpp"
MUTATIONS = SOURCES / "tests" / "mutations.toml"
TESTS: dict[str, list[str]] = {
    "test_scheduler": [],
    "test_tiers": [],
    "test_tps_floor": [],
    "test_cache_groups": [],
    "test_failures": [],
    "test_peers": [],
    "test_prefix_cache": [],
    "test_kv_events": [],
    "fuzz_scheduler": ["1", "500"],  # first seed, inputs
    "test_simulation": ["1", "400"],  # first seed, seeds
}
SECONDS_TO_HANG = 60.0  # a test runs for less than two


@dataclass(frozen=True)
class Mutation:
    bug: str
    file: str
    old: str
    new: str

    def text(self) -> str:
        """The file with the bug in it."""
        text = (SOURCES / self.file).read_text()
        places = text.count(self.old)
        if places != 1:
            raise SystemExit(
                f'"{self.bug}" does not apply any more: what it replaces stands {places} times '
                f"in {self.file}; rewrite it in {MUTATIONS.relative_to(ROOT)}"
            )
        return text.replace(self.old, self.new)


class Copy:
    """A copy of the scheduler's sources, and its build."""

    def __init__(self, folder: Path) -> None:
        self.sources = folder / "scheduler_cpp"
        self.build = folder / "build"
        shutil.copytree(SOURCES, self.sources)
        self._cmake(
            *("-S", self.sources, "-B", self.build),
            *("-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"),
            "-DCMAKE_BUILD_TYPE=None",
            "-DCMAKE_CXX_FLAGS=-O1 -w -DTS_CHECKED",  # -w: a bug may leave something unused
            "-DTS_SCHEDULER_PYTHON=OFF",
            "-DTS_SCHEDULER_TESTS=ON",
        )

    def compile(self) -> None:
        self._cmake("--build", self.build, "--target", *TESTS)

    def _cmake(self, *arguments: str | Path) -> None:
        done = subprocess.run([tool("cmake"), *arguments], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{done.stdout}\n{done.stderr}\nwhat does not build proves nothing")

    def failing(self) -> str | None:
        """The first test that fails."""
        return next((test for test in TESTS if not self._passes(test, TESTS[test])), None)

    def _passes(self, name: str, arguments: list[str]) -> bool:
        command = [self.build / "tests" / name, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS_TO_HANG)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def tool(name: str) -> str:
    """A build tool of this environment (cmake and ninja come from PyPI), or the system's."""
    path = shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.defpath]))
    if path is None:
        raise SystemExit(
            f"{name} is missing: run this with the environment's python (make install)"
        )
    return path


def main() -> int:
    words = sys.argv[1:]
    listed = [Mutation(**entry) for entry in tomllib.loads(MUTATIONS.read_text())["mutation"]]
    mutations = [m for m in listed if not words or any(word in m.bug for word in words)]
    if not mutations:
        raise SystemExit(f"no mutation's description has one of: {' '.join(words)}")
    texts = [mutation.text() for mutation in mutations]  # all apply, before the long part begins
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Copy(Path(folder))
        copy.compile()
        if broken := copy.failing():
            raise SystemExit(f"without any mutation {broken} fails")
        width = max(len(mutation.bug) for mutation in mutations)
        print(f"{'mutation':<{width}}  seconds  caught by", flush=True)
        for mutation, text in zip(mutations, texts, strict=True):
            start = time.monotonic()
            file = copy.sources / mutation.file
            file.write_text(text)
            copy.compile()  # only what has changed
            caught = copy.failing()
            file.write_text((SOURCES / mutation.file).read_text())
            survivors += caught is None
            seconds = time.monotonic() - start
            print(f"{mutation.bug:<{width}}  {seconds:7.1f}  {caught or 'NOBODY'}", flush=True)
    print(f"{len(mutations) - survivors} of {len(mutations)} mutations were caught")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
