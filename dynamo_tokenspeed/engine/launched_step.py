# SPDX-License-Identifier: MIT
"""A step on its way, from its launch to its sampled tokens on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import ts_scheduler

from dynamo_tokenspeed.engine.sampler import Sampled
from dynamo_tokenspeed.protocol import TokenLogprobs


class StepResult:
    """What one step sampled, one entry per sampling row in row order.

    failed: the requests whose rows could not be computed, and why; they must be aborted before the
    step is committed.
    """

    def __init__(
        self, token_ids: npt.NDArray[np.int32], logprobs: dict[int, TokenLogprobs]
    ) -> None:
        self.token_ids = token_ids
        self.failed: dict[int, str] = {}
        self._logprobs = logprobs

    @classmethod
    def of_parts(cls, parts: Sequence[StepResult]) -> StepResult:
        """Of a step whose rows were computed one after the other."""
        logprobs: dict[int, TokenLogprobs] = {}
        rows = 0
        for part in parts:
            logprobs |= {rows + row: record for row, record in part._logprobs.items()}
            rows += len(part.token_ids)
        return cls(np.concatenate([part.token_ids for part in parts]), logprobs)

    def logprobs(self, rows: npt.NDArray[np.int32]) -> list[TokenLogprobs]:
        """Log-probabilities of the tokens that were kept, re-indexed to entries of `rows`."""
        if not self._logprobs:
            return []
        return [
            TokenLogprobs(index, kept.logprob, kept.top_ids, kept.top_logprobs)
            for index, row in enumerate(rows.tolist())
            if (kept := self._logprobs.get(row)) is not None
        ]


class Readout:
    """The sampled tokens on their way to the host, behind all else that the step does.

    `sampled`: None for a step that samples nothing.
    """

    def __init__(self, sampled: Sampled | None, device: torch.device) -> None:
        self._sampled = sampled.to_host() if sampled is not None else None
        self._done = None
        if device.type == "cuda":
            self._done = torch.cuda.current_stream(device).record_event()

    def wait(self) -> StepResult:
        if self._done is not None:
            self._done.synchronize()
        if self._sampled is None:
            return StepResult(np.empty(0, np.int32), {})
        token_ids, logprobs = self._sampled
        return StepResult(
            token_ids.numpy().astype(np.int32), logprobs.by_row() if logprobs is not None else {}
        )


class RowReadouts:
    """A step whose rows were computed one by one; `failed`: see StepResult."""

    def __init__(self, rows: list[Readout], failed: dict[int, str]) -> None:
        self._rows = rows
        self._failed = failed

    def wait(self) -> StepResult:
        result = StepResult.of_parts([row.wait() for row in self._rows])
        result.failed = self._failed
        return result


class LaunchedStep:
    """A step that has its place behind those launched before it."""

    def __init__(
        self, plan: ts_scheduler.Plan, readout: Callable[[], Readout | RowReadouts]
    ) -> None:
        """`readout` waits until the step is launched on its device, and raises what stopped it."""
        self.number = plan.step
        self._readout = readout

    def result(self) -> StepResult:
        """Wait for its end, and for no step behind it."""
        return self._readout().wait()
