# SPDX-License-Identifier: MIT
"""What can go wrong with a launch. Every message is meant for the person who typed the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dynamo_tokenspeed.launch.program import Program

_LAST_LINES = 10


class LaunchError(Exception):
    """The deployment cannot start or go on."""


class RecipeError(LaunchError):
    """A recipe that cannot be launched, in one sentence that names the file and the key."""


class ProgramExited(LaunchError):
    """A program of the deployment ended by itself; the message has the end of its log."""

    def __init__(self, program: Program, when: str) -> None:
        code = program.returncode
        how = f"exited with code {code}" if code is None or code >= 0 else f"died of signal {-code}"
        lines = program.log().strip().splitlines()[-_LAST_LINES:] or ["(nothing)"]
        super().__init__(
            f"{program.name} {how} {when}. The end of its log, {program.log_path}:\n"
            + "\n".join(f"  {line}" for line in lines)
        )
        self.program = program
