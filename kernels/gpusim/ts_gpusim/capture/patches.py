# SPDX-License-Identifier: MIT
"""Replace attributes of other packages, and put every one of them back."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

_ABSENT = object()


class Patches:
    """Undone in reverse order; what a class inherits is inherited again."""

    def __init__(self) -> None:
        self._undo = ExitStack()

    def set(self, owner: Any, name: str, value: object) -> None:
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        if before is _ABSENT:
            self._undo.callback(delattr, owner, name)
        else:
            self._undo.callback(setattr, owner, name, before)

    def set_environment(self, name: str, value: str) -> None:
        before = os.environ.get(name)
        os.environ[name] = value
        if before is None:
            self._undo.callback(os.environ.pop, name, None)
        else:
            self._undo.callback(os.environ.__setitem__, name, before)

    def undo(self) -> None:
        self._undo.close()
