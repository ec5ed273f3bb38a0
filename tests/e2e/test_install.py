# SPDX-License-Identifier: MIT
"""`python -m dynamo.tokenspeed` is ours wherever our wheel is, and Dynamo's own again without it.

One wheel, fresh environments. Each holds ai-dynamo's wheels and ours; what they import
comes from the environment that runs the tests. `TS_TEST_WHEEL` names a wheel
to test in place of one built from this checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dynamo_environments import NEWEST, OLDEST, ROOT, site_packages

pytestmark = pytest.mark.slow

NAME = "dynamo-tokenspeed"
Installer = Callable[..., None]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("TS_TEST_WHEEL"):
        return Path(given)
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    run(sys.executable, "-m", "pip", "wheel", *options, str(ROOT), timeout=600)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(params=["pip", "uv"])
def install(request: pytest.FixtureRequest) -> Installer:
    """`install(environment, "install" or "uninstall", arguments...)`."""

    def pip(environment: Path, command: str, *arguments: str) -> None:
        options = ["--no-deps", "--no-compile"] if command == "install" else ["--yes"]
        pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(environment)]
        run(*pip, command, *options, *arguments)

    def uv(environment: Path, command: str, *arguments: str) -> None:
        options = ["--no-deps"] if command == "install" else []
        arguments = tuple(
            "--reinstall" if argument == "--force-reinstall" else argument for argument in arguments
        )
        python = ["--python", str(environment / "bin/python")]
        run(sys.executable, "-m", "uv", "pip", command, "--quiet", *python, *options, *arguments)

    return {"pip": pip, "uv": uv}[request.param]


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    folder = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    return folder


def test_ours_first_then_dynamo(install: Installer, environment: Path, wheel: Path) -> None:
    install(environment, "install", str(wheel))
    install(environment, "install", *dynamo(NEWEST))
    assert runs_ours(environment)


def test_dynamo_first_then_ours_then_a_reinstall_of_dynamo(
    install: Installer, environment: Path, wheel: Path
) -> None:
    install(environment, "install", *dynamo(OLDEST))
    install(environment, "install", str(wheel))
    assert runs_ours(environment)
    install(environment, "install", "--force-reinstall", dynamo(OLDEST)[0])
    assert runs_ours(environment)
    install(environment, "install", *dynamo(NEWEST))  # an upgrade
    assert runs_ours(environment)


def test_uninstalling_ours_gives_dynamos_own_back_untouched(
    install: Installer, environment: Path, wheel: Path
) -> None:
    install(environment, "install", *dynamo(NEWEST))
    before = files(environment)
    install(environment, "install", str(wheel))
    with_ours = files(environment)
    assert with_ours.keys() > before.keys()
    assert {path: with_ours[path] for path in before} == before
    install(environment, "uninstall", NAME)
    assert files(environment) == before
    assert not runs_ours(environment)
    assert origin(environment).is_relative_to(site_packages(environment) / "dynamo/tokenspeed")


def test_no_file_of_ours_is_in_dynamos_folder(
    install: Installer, environment: Path, wheel: Path
) -> None:
    install(environment, "install", str(wheel))
    assert not (site_packages(environment) / "dynamo").exists()


def dynamo(version: str) -> list[str]:
    return [f"ai-dynamo=={version}", f"ai-dynamo-runtime=={version}"]


def files(environment: Path) -> dict[Path, bytes]:
    """Every installed file but bytecode, with its content."""
    root = site_packages(environment)
    return {
        path.relative_to(root): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@contextmanager
def borrowed_dependencies(environment: Path) -> Iterator[None]:
    """Dynamo's dependencies, found behind the environment's own packages.

    Only while something runs: an installer would take what it finds there for installed.
    The .pth files of the shared folder are not read.
    """
    shared = site_packages(environment) / "zz_shared.pth"
    shared.write_text(sysconfig.get_path("purelib") + "\n")
    yield
    shared.unlink()


def runs_ours(environment: Path) -> bool:
    with borrowed_dependencies(environment):
        done = subprocess.run(
            [str(environment / "bin/python"), "-m", "dynamo.tokenspeed", "--help"],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=environment,
            env=clean_environment(),
        )
    return done.returncode == 0 and "--kv-cache-memory" in done.stdout


def origin(environment: Path) -> Path:
    """Where this environment's `dynamo.tokenspeed` comes from."""
    ask = "import importlib.util; print(importlib.util.find_spec('dynamo.tokenspeed').origin)"
    with borrowed_dependencies(environment):
        done = run(str(environment / "bin/python"), "-c", ask, cwd=environment)
    return Path(done.strip())


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command: str, timeout: float = 120, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, cwd=cwd, env=clean_environment()
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
