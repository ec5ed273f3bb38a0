# SPDX-License-Identifier: MIT
"""What the front end raises about a PTX text that it cannot turn into instructions."""

from __future__ import annotations


class PtxError(ValueError):
    """One sentence: what was found, what is allowed, the way out. `line` counts from 1."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"PTX line {line}: {message}")
        self.line = line
