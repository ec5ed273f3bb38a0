# SPDX-License-Identifier: MIT
"""The Dynamo releases that we promise to work with, each in an environment of its own.

The newest is the environment that runs the tests. The oldest is a venv that holds
nothing but ai-dynamo's two wheels and takes everything else, this project included,
from the environment that runs the tests. It takes seconds to make, and is kept.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEWEST, OLDEST = "1.6.1", "1.4.2"


@dataclass(frozen=True)
class DynamoEnvironment:
    version: str
    python: str


def dynamo_environment(version: str) -> DynamoEnvironment:
    """`version` is `NEWEST` or `OLDEST`; the environment is made if it is not there."""
    if version == NEWEST:
        return DynamoEnvironment(version, sys.executable)
    folder = ROOT / ".venvs" / f"dynamo-{version}"
    folder.parent.mkdir(exist_ok=True)
    lock = folder.parent / f"{folder.name}.lock"
    with lock.open("w") as held:  # tests run in several processes
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            make_environment(folder, f"ai-dynamo=={version}", f"ai-dynamo-runtime=={version}")
            (folder / "ready").touch()
    return DynamoEnvironment(version, str(folder / "bin/python"))


def make_environment(folder: Path, *wheels: str) -> None:
    """A venv with `wheels`, and this interpreter's packages behind them."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True, timeout=60
    )
    if wheels:
        pip_install(folder, *wheels)
    shared = sysconfig.get_path("purelib")
    # Processed like a site directory, so that its own .pth files (an editable install's,
    # our finder's) work here too. Behind our own packages: ours come first.
    (site_packages(folder) / "zz_shared.pth").write_text(
        f"import site; site.addsitedir({shared!r})\n"
    )


def pip_install(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*command, "--python", folder, "install", "--no-deps", *arguments], check=True, timeout=300
    )


def site_packages(folder: Path) -> Path:
    return next((folder / "lib").glob("python*/site-packages"))
