# SPDX-License-Identifier: MIT
"""What can go wrong before the worker serves. Faults of a request are Dynamo's exceptions."""

from __future__ import annotations

USAGE_EXIT_CODE = 2
START_EXIT_CODE = 1


class UsageError(Exception):
    """A flag is wrong: one sentence that names it and the way out."""


class StartError(Exception):
    """The engine cannot start: one sentence for the user."""
