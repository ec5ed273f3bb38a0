# SPDX-License-Identifier: MIT
"""Which requests were in flight when an engine process ended, told to the other workers here.

A frontend migrates the requests of a dead engine, and the one that killed it along with the rest.
Dynamo tells the next worker nothing of that, but a request keeps its context id from worker to
worker. So each death leaves a mark for every id in flight, and an id that has one already is under
too strong a suspicion to be handed on a second time.

The marks are empty files in a folder under TMPDIR, readable for one user, that the workers of a
machine share (workers in different containers do if TMPDIR is one volume). A worker that dies
together with its engine leaves none. Without a folder that can be trusted nobody is suspected.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

FOLDER = f"dynamo-tokenspeed-deaths-{os.getuid()}"
_REMEMBERED_SECONDS = 3600.0  # longer than a frontend keeps trying


class EngineDeaths:
    def __init__(self, parent: Path | None = None) -> None:
        self._folder = (parent or Path(tempfile.gettempdir())) / FOLDER

    def record(self, context_ids: Iterable[str]) -> set[str]:
        """Mark these requests; returns those that had been in flight at an earlier death."""
        try:
            self._make_folder()
            self._forget_old_marks()
            return {context_id for context_id in context_ids if not self._mark(context_id)}
        except OSError as error:
            logger.warning("nobody is suspected of this engine's end: %s", error)
            return set()

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise OSError(f"{self._folder} is not a folder that only this user can write to")

    def _forget_old_marks(self) -> None:
        oldest = time.time() - _REMEMBERED_SECONDS
        for mark in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another worker has removed it
                if mark.lstat().st_mtime < oldest:
                    mark.unlink()

    def _mark(self, context_id: str) -> bool:
        """False if there is a mark already."""
        name = hashlib.sha256(context_id.encode()).hexdigest()
        try:
            (self._folder / name).touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            return False
        return True
