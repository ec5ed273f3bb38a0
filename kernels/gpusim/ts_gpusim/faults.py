# SPDX-License-Identifier: MIT
"""What the machine finds in a kernel that does wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ts_gpusim.report.schema import Recording


class Fault(RuntimeError):
    """A sentence, then where it happened. `kind`: such as out-of-bounds, deadlock, race.

    `recording`: until then, of a machine that records.
    """

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(f"{kind}: {sentence}")
        self.kind = kind
        self.recording: Recording | None = None


class LaunchError(ValueError):
    """A launch that no GPU would take, or arguments that the kernel does not: one sentence."""


@dataclass(frozen=True)
class Finding:
    """Something wrong after which a launch can go on: a race, once for two instructions."""

    kind: str
    sentence: str
    times: int

    def __str__(self) -> str:
        return f"{self.kind} ({self.times} times): {self.sentence}"
