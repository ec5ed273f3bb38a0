# SPDX-License-Identifier: MIT
"""The finder that makes `dynamo.tokenspeed` mean this worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dynamo_tokenspeed import _finder

PACKAGE = Path(_finder.__file__).parent
PTH = PACKAGE.parent / "dynamo_tokenspeed.pth"


def python(*code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", "; ".join(code)],
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_it_answers_for_one_name_only() -> None:
    find = _finder.DynamoTokenspeedFinder.find_spec
    spec = find("dynamo.tokenspeed")
    assert spec.origin == str(PACKAGE / "dynamo_package/__init__.py")
    assert spec.submodule_search_locations == [str(PACKAGE / "dynamo_package")]
    for other in ("dynamo", "dynamo.tokenspeed.args", "dynamo.vllm", "tokenspeed"):
        assert find(other) is None


def test_it_imports_nothing_an_interpreter_has_not_at_start() -> None:
    done = python(
        "import sys",
        "before = set(sys.modules)",
        f"sys.path.insert(0, {str(PACKAGE.parent)!r})",
        "import dynamo_tokenspeed._finder",
        "print(sorted(set(sys.modules) - before))",
    )
    assert done.stdout.strip() == "['dynamo_tokenspeed', 'dynamo_tokenspeed._finder']"


def test_the_pth_file_is_one_line_that_survives_a_missing_package() -> None:
    (line,) = PTH.read_text().splitlines()
    assert line.startswith("import ")  # what site runs
    done = python(line)  # no path leads to our package
    assert (done.returncode, done.stderr) == (0, "")


def test_a_half_removed_package_leaves_the_name_to_others(tmp_path: Path) -> None:
    (tmp_path / "dynamo_tokenspeed").mkdir()
    (tmp_path / "dynamo_tokenspeed/__init__.py").touch()
    (tmp_path / "dynamo_tokenspeed/_finder.py").write_text(Path(_finder.__file__).read_text())
    done = python(
        "import sys",
        f"sys.path.insert(0, {str(tmp_path)!r})",
        "from dynamo_tokenspeed._finder import DynamoTokenspeedFinder",
        "print(DynamoTokenspeedFinder.find_spec('dynamo.tokenspeed'))",
    )
    assert done.stdout.strip() == "None"
