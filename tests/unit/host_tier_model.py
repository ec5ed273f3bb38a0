# SPDX-License-Identifier: MIT
"""The policy of the tier behind the device, slow and obvious; see scheduler_model.py."""

from __future__ import annotations

from dataclasses import dataclass

from kv_events_model import Content, KvEventsModel
from withdrawal_model import Withdrawal, is_withdrawn


@dataclass
class WriteBack:
    """A page's way from the device to the host."""

    content: Content
    device_page: int
    host_page: int
    clearings: int  # so many had there been when it began


class HostTierModel:
    """Pages by content; those that no load reads, least recently used first."""

    def __init__(self, num_pages: int, events: KvEventsModel) -> None:
        self.events = events
        self.free_pages = list(reversed(range(num_pages)))
        self.page_of: dict[Content, int] = {}
        self.readers: dict[Content, int] = {}  # loads under way, of every page held
        self.unread: list[Content] = []
        self.pending: list[WriteBack] = []  # the next plan stores these
        self.clearings = 0

    def evicted(self, content: Content, device_page: int) -> None:
        """The device gives a page up. If it is held here already that counts as a use of it, so
        that a page stays older than the one it continues, as on the device."""
        if content in self.page_of:
            if self.readers[content] == 0:
                self.unread.remove(content)
                self.unread.append(content)
            return
        if not self.free_pages:
            if not self.unread:
                return  # every page is being written or read: the content is lost
            self._evict()
        self.pending.append(WriteBack(content, device_page, self.free_pages.pop(), self.clearings))

    def take_pending(self) -> list[WriteBack]:
        pending, self.pending = self.pending, []
        return pending

    def written(self, write_backs: list[WriteBack], ok: bool) -> None:
        """Nothing was held here before its store ended well; what came from before a clearing, was
        withdrawn, or came twice, is of no use."""
        for store in write_backs:
            content = store.content
            wanted = store.clearings == self.clearings and not is_withdrawn(content)
            if ok and wanted and content not in self.page_of:
                self.page_of[content] = store.host_page
                self.readers[content] = 0
                self.unread.append(content)
                self.events.stored(content, "CPU_TIER1")
            else:
                self.free_pages.append(store.host_page)

    def pin(self, content: Content) -> None:
        """A load reads it."""
        if self.readers[content] == 0:
            self.unread.remove(content)
        self.readers[content] += 1

    def unpin(self, content: Content) -> None:
        self.readers[content] -= 1
        if self.readers[content] == 0:
            self.unread.append(content)
        self._free_withdrawn()

    def withdraw(self, withdrawal: Withdrawal) -> None:
        for content in sorted(self.page_of, key=lambda c: self.page_of[c]):
            if withdrawal.takes(content):
                self.events.removed(content, "CPU_TIER1")
        self.page_of = {withdrawal.name(c): page for c, page in self.page_of.items()}
        self.readers = {withdrawal.name(c): count for c, count in self.readers.items()}
        self.unread = [withdrawal.name(content) for content in self.unread]
        self._free_withdrawn()

    def _free_withdrawn(self) -> None:
        for content in [content for content in self.unread if is_withdrawn(content)]:
            self.free_pages.append(self._remove(content))

    def clear(self) -> None:
        for content in list(self.unread):
            self.free_pages.append(self._remove(content))
        self.clearings += 1

    def _evict(self) -> None:
        oldest = self.unread[0]
        self.events.removed(oldest, "CPU_TIER1")
        self.free_pages.append(self._remove(oldest))

    def _remove(self, content: Content) -> int:
        self.unread.remove(content)
        del self.readers[content]
        return self.page_of.pop(content)
