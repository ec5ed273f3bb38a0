# SPDX-License-Identifier: MIT
"""Further cache groups, slow and obvious; see scheduler_model.py.

A sequence holds pages of such a group only for the columns that computing its next tokens
reads or writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kv_events_model import Content


@dataclass(frozen=True)
class CacheGroup:
    kind: Literal["sliding_window", "recurrent"]
    num_pages: int
    window: int = 0  # tokens; none in a recurrent group

    def first_column(self, position: int, page_size: int) -> int:
        """That computing the token at `position` reads: the oldest token in its window, or the
        token before it, which left the state."""
        oldest = position - 1 if self.kind == "recurrent" else position + 1 - self.window
        return max(0, oldest) // page_size

    def least_pages(self, page_size: int) -> int:
        """With which one sequence can always go on: those it reads, one that it writes, and one
        that a step in flight writes."""
        reads = 1 if self.kind == "recurrent" else -(-self.window // page_size) + 1
        return reads + 2


class CacheGroupPages:
    """A group's pages that no sequence holds: free, or found by the content that they hold."""

    def __init__(self, group: CacheGroup) -> None:
        self.group = group
        self.free_pages = list(reversed(range(group.num_pages)))
        self.orphans: list[int] = []  # free as well, but those above are taken first
        self.page_of: dict[Content, int] = {}
        self.references: dict[int, int] = {}  # of every cached page
        self.unreferenced: list[int] = []  # least recently used first

    def available(self) -> int:
        return len(self.free_pages) + len(self.orphans) + len(self.unreferenced)

    def take(self) -> int:
        if self.free_pages:
            return self.free_pages.pop()
        if self.orphans:
            return self.orphans.pop()
        return self._remove(self.unreferenced[0])

    def acquire(self, content: Content) -> int:
        page = self.page_of[content]
        if self.references[page] == 0:
            self.unreferenced.remove(page)
        self.references[page] += 1
        return page

    def insert(self, content: Content, page: int) -> None:
        self.page_of[content] = page
        self.references[page] = 1

    def release(self, page: int) -> None:
        self.references[page] -= 1
        if self.references[page] == 0:
            self.unreferenced.append(page)

    def forget(self, content: Content) -> None:
        """Its full-attention page leaves the device, so nobody can match this one any more."""
        if content in self.page_of:
            self.orphans.append(self._remove(self.page_of[content]))

    def _remove(self, page: int) -> int:
        self.unreferenced.remove(page)
        content = next(c for c, cached in self.page_of.items() if cached == page)
        del self.page_of[content], self.references[page]
        return page


@dataclass
class GroupPage:
    """A page that a sequence holds."""

    column: int
    page: int
    shared: bool  # a reference into the cache
    state_after: int = 0  # tokens of the sequence, once its rows so far are computed
    sent: bool = False  # it is in the device's block table


@dataclass
class SequenceGroupPages:
    """What one sequence holds of a group, oldest column first."""

    group: CacheGroup
    page_size: int
    held: list[GroupPage] = field(default_factory=list)
    spare: int | None = None  # taken for the next column, so that the sequence can go on

    def to_open(self, start: int, end: int) -> range:
        """Columns without a page in which computing [start, end) writes: all of them, or only the
        last one, whose state is that of the end."""
        last = (end - 1) // self.page_size
        first = last if self.group.kind == "recurrent" else start // self.page_size
        return range(max(first, self.held[-1].column + 1 if self.held else 0), last + 1)

    def at(self, column: int) -> GroupPage | None:
        return next((page for page in self.held if page.column == column), None)
