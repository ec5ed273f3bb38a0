# SPDX-License-Identifier: MIT
"""What the engine process is doing now, in memory that the worker process can read at any time.

A process that is stopped, or stuck in native code, can answer nothing. So the engine writes what
it is about to do before it does it, a few words of memory and no message, and the worker looks at
them now and then (`worker.watchdog`). Words that change are a sign of life; those that stay say
what does not return.

One writer, the thread of the step loop; readers may see a step half written, which is good enough
for a sentence. The word `progress` is written by the kernels, from whatever thread calls them.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# Words, unsigned 64-bit.
_BEATS, _BUSY, _RECEIVED, _STEP, _PROGRESS, _RECORDS = range(6)
_RECORD = struct.Struct("4Q")  # of a step: its number, rows, decode rows, tokens
_RECORD_WORDS = _RECORD.size // 8
_STEPS_IN_FLIGHT = 2
_HEADER_WORDS = _RECORDS + _STEPS_IN_FLIGHT * _RECORD_WORDS


class StepInFlight(NamedTuple):
    """What is in a step that has not returned."""

    number: int
    rows: int
    absorbed_rows: int
    tokens: int
    request_ids: list[int]


class Sign(NamedTuple):
    """Two that are equal: the engine has done nothing between them."""

    beats: int
    busy: bool  # False: it waits for a message
    received: int  # messages
    progress: int  # of a kernel
    steps: tuple[int, ...]  # the one it waits for, and those launched last


class Heartbeat:
    """The words, from either side."""

    def __init__(self, max_num_seqs: int, fd: int | None = None) -> None:
        """`fd`: of shared memory (`shared_memory`); None: nobody reads it."""
        self._memory = mmap.mmap(-1 if fd is None else fd, _size(max_num_seqs))
        words = np.frombuffer(self._memory, np.uint64)
        self._words = memoryview(self._memory).cast("Q")
        self.progress = words[_PROGRESS : _PROGRESS + 1]
        tables = words[_HEADER_WORDS:]
        self._request_in = tables[:max_num_seqs]  # by slot
        slots = tables[max_num_seqs:].view(np.int32)
        self._slots = [slots[i * max_num_seqs :][:max_num_seqs] for i in range(_STEPS_IN_FLIGHT)]

    @staticmethod
    def shared_memory(max_num_seqs: int) -> int:
        """A file descriptor of zeroed memory, to be inherited and closed."""
        fd = os.memfd_create("dynamo-tokenspeed-heartbeat")
        os.ftruncate(fd, _size(max_num_seqs))
        return fd

    # -- the engine's side ----------------------------------------------------

    def waits(self) -> None:
        """The engine is about to sleep until a message comes."""
        self._words[_BUSY] = 0

    def works(self) -> None:
        """It is awake."""
        words = self._words
        words[_BUSY] = 1
        words[_BEATS] += 1

    def received(self) -> None:
        """It has taken a message of the worker."""
        self._words[_RECEIVED] += 1

    def launches(self, plan: Any) -> None:
        """It is about to launch the step of this plan (`ts_scheduler.Plan`)."""
        number, rows = plan.step, plan.num_rows
        parity = number % _STEPS_IN_FLIGHT
        admitted = plan.admitted_slot
        if len(admitted):
            self._request_in[admitted] = plan.admitted_request
        self._slots[parity][:rows] = plan.row_slot
        at = 8 * _record(parity)
        _RECORD.pack_into(self._memory, at, number, rows, plan.num_absorbed_rows, plan.num_tokens)
        self._words[_STEP] = number

    def reads(self, number: int) -> None:
        """It is about to wait for the tokens of a step that it has launched."""
        self._words[_STEP] = number

    def has_read(self) -> None:
        """The tokens are there."""
        self._words[_STEP] = 0

    # -- the worker's side ----------------------------------------------------

    def sign(self) -> Sign:
        words = self._words
        steps = (words[_STEP], *(words[_record(parity)] for parity in range(_STEPS_IN_FLIGHT)))
        return Sign(words[_BEATS], bool(words[_BUSY]), words[_RECEIVED], words[_PROGRESS], steps)

    def step(self) -> StepInFlight | None:
        """The step that the engine waits for; None outside of one."""
        number = self._words[_STEP]
        if not number:
            return None
        parity = number % _STEPS_IN_FLIGHT
        at = _record(parity)
        rows, absorbed_rows, tokens = self._words[at + 1 : at + _RECORD_WORDS]
        slots: npt.NDArray[np.int32] = self._slots[parity][:rows]
        return StepInFlight(number, rows, absorbed_rows, tokens, self._request_in[slots].tolist())


def _record(parity: int) -> int:
    return _RECORDS + parity * _RECORD_WORDS


def _size(max_num_seqs: int) -> int:
    return 8 * (_HEADER_WORDS + max_num_seqs) + 4 * _STEPS_IN_FLIGHT * max_num_seqs
