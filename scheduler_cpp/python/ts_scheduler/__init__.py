# SPDX-License-Identifier: MIT
"""The control plane: requests, pages and steps, decided in C++.

`Scheduler` plans steps as deltas to persistent device tables; `Plan` and `Output`
are numpy views of its buffers. docs/architecture.md describes every field.
"""

import enum

from ts_scheduler._core import (
    CacheGroup,
    FloorReport,
    Output,
    Plan,
    Scheduler,
    SchedulerConfig,
    Stats,
)

__all__ = [
    "CacheGroup",
    "Finish",
    "FloorReport",
    "Output",
    "Plan",
    "Scheduler",
    "SchedulerConfig",
    "Stats",
    "Transfer",
]


class Finish(enum.IntEnum):
    """Why a request's output ended: the values of `Output.finish`."""

    NONE = 0
    STOP = 1  # an eos or stop token was sampled
    LENGTH = 2  # max_tokens, or the context limit
    FAILED = 3  # its next token could not be sampled


class Transfer(enum.IntEnum):
    """Which way a transfer goes: the values of `Plan.transfer_kind`."""

    STORE = 0  # device to host, before the plan's rows write
    LOAD = 1  # host to device, after what the plan displaces
    SEND = 2  # device to a peer
    RECEIVE = 3  # a peer to device, after what the plan displaces
    DISPLACE = 4  # device to host, before the plan's loads and receives write; no row does
