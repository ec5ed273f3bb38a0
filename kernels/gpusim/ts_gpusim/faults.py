# SPDX-License-Identifier: MIT
"""What the machine finds in a kernel that does wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ts_gpusim.report.schema import Recording


def _told(sentence: str, history: Iterable[str]) -> str:
    return "".join([sentence, *(f"\n  had synchronised at {place}" for place in history)])


@dataclass(frozen=True)
class Finding:
    """Something wrong after which a launch can go on: a race, once for two instructions.

    `history`: the instructions at which the warp (of a race, the later one) had last synchronised,
    the newest first.
    """

    kind: str
    sentence: str
    times: int
    history: Sequence[str] = ()

    @property
    def told(self) -> str:
        """The sentence, and a line for each part of the history."""
        return _told(self.sentence, self.history)

    def __str__(self) -> str:
        return f"{self.kind} ({self.times} times): {self.told}"


class Fault(RuntimeError):
    """A sentence, then where it happened. `kind`: such as out-of-bounds, deadlock, race.

    `history`: as of a finding. `before`: what was found until then, which may be its cause.
    `recording`: until then, of a machine that records.
    """

    def __init__(
        self,
        kind: str,
        sentence: str,
        history: Sequence[str] = (),
        before: Iterable[tuple[str, str, int, Sequence[str]]] = (),
    ) -> None:
        self.kind = kind
        self.history = tuple(history)
        self.before = tuple(Finding(*finding) for finding in before)
        super().__init__(f"{kind}: {_told(sentence, history)}")
        self.recording: Recording | None = None


class LaunchError(ValueError):
    """A launch that no GPU would take, or arguments that the kernel does not: one sentence."""
