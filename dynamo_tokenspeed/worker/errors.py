# SPDX-License-Identifier: MIT
"""What can go wrong before the worker serves. Faults of a request are Dynamo's exceptions."""

from __future__ import annotations

STOPPED_EXIT_CODE = 0
START_EXIT_CODE = 1
DEAD_ENGINE_EXIT_CODE = 1
USAGE_EXIT_CODE = 2


class UsageError(Exception):
    """A flag is wrong: one sentence that names it and the way out."""


class StartError(Exception):
    """The engine cannot start: one sentence for the user."""


class Stopped(StartError):
    """It was asked to stop before it served, which is no fault."""
