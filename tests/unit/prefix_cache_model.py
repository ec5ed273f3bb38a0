# SPDX-License-Identifier: MIT
"""The prefix cache's policy, slow and obvious; see scheduler_model.py.

A page is found under everything it stands for, its salt and all tokens up to its end,
so there is no hash and no collision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cache_group_model import CacheGroupPages
from host_tier_model import HostTierModel, WriteBack
from kv_events_model import Content, KvEventsModel
from withdrawal_model import Withdrawal, continues, is_withdrawn


@dataclass
class Match:
    """A prefix: pages on the device, then what would have to be loaded."""

    pages: list[int] = field(default_factory=list)
    in_host: list[Content] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pages) + len(self.in_host)


class PrefixCacheModel:
    """Full pages by content; those that no sequence refers to, least recently used first."""

    def __init__(
        self,
        page_size: int,
        groups: list[CacheGroupPages],
        host: HostTierModel,
        events: KvEventsModel,
    ) -> None:
        self.page_size = page_size
        self.groups = groups
        self.host = host
        self.events = events
        self.page_of: dict[Content, int] = {}
        self.expanded: dict[Content, int] = {}  # tokens of it in that form, if it is known
        self.references: dict[int, int] = {}  # of every cached page
        self.unreferenced: list[int] = []
        self.proven: set[int] = set()  # pages with a sampled token behind them

    def match(
        self, salt: bytes, tokens: list[int], max_pages: int, accepts: Callable[[int, int], bool]
    ) -> Match:
        """Behind the first page that is not on the device only the host is asked: a page is of
        no use where the one before it is missing."""
        found = Match()
        for column in range(max_pages):
            content = self._content(salt, tokens, column)
            if content in self.expanded and not accepts(column, self.expanded[content]):
                break
            if content in self.page_of and not found.in_host:
                found.pages.append(self.page_of[content])
            elif content in self.host.page_of:
                found.in_host.append(content)
            else:
                break
        if self.groups:  # they exclude a host tier
            while not self._every_group_can_go_on(salt, tokens, len(found)):
                found.pages.pop()
        return found

    def _every_group_can_go_on(self, salt: bytes, tokens: list[int], columns: int) -> bool:
        return all(
            self._content(salt, tokens, column) in pages.page_of
            for pages in self.groups
            for column in self.columns_read(pages, columns)
        )

    def columns_read(self, pages: CacheGroupPages, columns: int) -> range:
        """By what goes on behind so many columns."""
        position = columns * self.page_size
        return range(pages.group.first_column(position, self.page_size), columns)

    def _content(self, salt: bytes, tokens: list[int], column: int) -> Content:
        return (salt, tuple(tokens[: (column + 1) * self.page_size]))

    def acquire(self, page: int) -> None:
        if self.references[page] == 0:
            self.unreferenced.remove(page)
        self.references[page] += 1

    def may_enter(self, content: Content, expanded: int, write_backs: Iterable[WriteBack]) -> bool:
        """Not if it is known as computed otherwise. It is known as long as a page of it, or of
        something behind it, is anywhere, on its way to the host included."""
        held = [*self.page_of, *self.host.page_of, *(store.content for store in write_backs)]
        if not any(continues(other, content) for other in held):
            self.expanded.pop(content, None)
        return self.expanded.get(content, expanded) == expanded

    def insert(self, content: Content, page: int, expanded: int) -> None:
        self.page_of[content] = page
        self.expanded[content] = expanded
        self.references[page] = 1
        self.proven.discard(page)
        self.events.stored(content)

    def release(self, page: int) -> list[int]:
        """The page, if it is free now: it was withdrawn, and nobody refers to it any more."""
        self.references[page] -= 1
        if self.references[page] == 0:
            self.unreferenced.append(page)
        return self._free_withdrawn()

    def withdraw(self, withdrawal: Withdrawal) -> list[int]:
        """The pages that are free now."""
        for page in sorted(self.page_of.values()):
            content = self.content_of(page)
            if withdrawal.takes(content):
                self.events.removed(content)
        for pages in (self, *self.groups):
            pages.page_of = {withdrawal.name(c): page for c, page in pages.page_of.items()}
        self.expanded = {c: n for c, n in self.expanded.items() if not withdrawal.takes(c)}
        free = self._free_withdrawn()
        self.host.withdraw(withdrawal)
        return free

    def _free_withdrawn(self) -> list[int]:
        free = [page for page in self.unreferenced if is_withdrawn(self.content_of(page))]
        for page in free:
            self._remove(page)
        return free

    def content_of(self, page: int) -> Content:
        return next(c for c, cached in self.page_of.items() if cached == page)

    def evict(self) -> int:
        page, content = self._remove_oldest()
        self.events.removed(content)
        self.host.evicted(content, page)
        return page

    def clear(self) -> list[int]:
        """The pages that are free now, least recently used first."""
        pages = [self._remove_oldest()[0] for _ in list(self.unreferenced)]
        self.host.clear()
        self.events.cleared()
        return pages

    def _remove_oldest(self) -> tuple[int, Content]:
        page = self.unreferenced[0]
        return page, self._remove(page)

    def _remove(self, page: int) -> Content:
        content = self.content_of(page)
        self.unreferenced.remove(page)
        del self.page_of[content], self.references[page]
        for pages in self.groups:
            pages.forget(content)
        return content
