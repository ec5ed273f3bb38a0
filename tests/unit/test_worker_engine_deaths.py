# SPDX-License-Identifier: MIT
"""A request that was in flight at two deaths of engines is known by its second."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dynamo_tokenspeed.worker import engine_deaths
from dynamo_tokenspeed.worker.engine_deaths import FOLDER, EngineDeaths


def test_who_was_in_flight_at_an_earlier_death_is_suspected(tmp_path: Path) -> None:
    assert EngineDeaths(tmp_path).record(["a", "b"]) == set()  # one worker
    assert EngineDeaths(tmp_path).record(["b", "c"]) == {"b"}  # another one
    assert EngineDeaths(tmp_path).record(["a", "b", "c", "d"]) == {"a", "b", "c"}


def test_any_context_id_can_be_marked(tmp_path: Path) -> None:
    ids = ["", "../../etc/passwd", "x" * 5000, "ü\n\0", "a/b"]
    deaths = EngineDeaths(tmp_path)

    assert deaths.record(ids) == set()
    assert deaths.record(ids) == set(ids)
    assert {path.name for path in tmp_path.iterdir()} == {FOLDER}
    assert len([*(tmp_path / FOLDER).iterdir()]) == len(ids)


def test_an_old_death_is_forgotten(tmp_path: Path) -> None:
    deaths = EngineDeaths(tmp_path)
    deaths.record(["a", "b"])
    [first, _] = sorted((tmp_path / FOLDER).iterdir())
    os.utime(first, (0, 0))

    assert len(deaths.record(["a", "b"])) == 1


def test_others_can_neither_read_nor_write_the_marks(tmp_path: Path) -> None:
    EngineDeaths(tmp_path).record(["a"])

    [mark] = (tmp_path / FOLDER).iterdir()
    assert (tmp_path / FOLDER).stat().st_mode & 0o077 == 0
    assert mark.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("trap", ["symlink", "file", "writable"])
def test_a_folder_that_somebody_else_may_have_made_is_not_trusted(
    tmp_path: Path, trap: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, elsewhere = tmp_path / FOLDER, tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if trap == "symlink":
        folder.symlink_to(elsewhere)
    elif trap == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)

    assert EngineDeaths(tmp_path).record(["a"]) == set()
    assert EngineDeaths(tmp_path).record(["a"]) == set()
    assert [*elsewhere.iterdir()] == []
    assert "nobody is suspected" in caplog.text


def test_without_a_place_to_write_nobody_is_suspected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert EngineDeaths(tmp_path / "missing").record(["a"]) == set()
    assert "nobody is suspected" in caplog.text


def test_marks_are_kept_longer_than_a_migration_takes() -> None:
    assert engine_deaths._REMEMBERED_SECONDS > 600
