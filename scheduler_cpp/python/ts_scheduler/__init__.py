# SPDX-License-Identifier: MIT
"""The control plane: requests, pages and steps, decided in C++.

`Scheduler` plans steps as deltas to persistent device tables; `Plan` and `Output`
are numpy views of its buffers. docs/architecture.md describes every field.
"""

import enum

from ts_scheduler._core import FloorReport, Output, Plan, Scheduler, SchedulerConfig, Stats

__all__ = ["Finish", "FloorReport", "Output", "Plan", "Scheduler", "SchedulerConfig", "Stats"]


class Finish(enum.IntEnum):
    """Why a request's output ended: the values of `Output.finish`."""

    NONE = 0
    STOP = 1  # an eos or stop token was sampled
    LENGTH = 2  # max_tokens, or the context limit
