# SPDX-License-Identifier: MIT
"""The prefix cache's policy, slow and obvious; see scheduler_model.py.

A page is found under everything it stands for, its salt and all tokens up to its end,
so there is no hash and no collision. Events name pages by that content too.
"""

from __future__ import annotations

# What a page holds: (salt, every token from the first to the page's last).
Content = tuple[bytes, tuple[int, ...]]


class PrefixCacheModel:
    """Full pages by content; those that no sequence refers to, least recently used first."""

    def __init__(self, page_size: int, announces: bool) -> None:
        self.page_size = page_size
        self.page_of: dict[Content, int] = {}
        self.references: dict[int, int] = {}  # of every cached page
        self.unreferenced: list[int] = []
        self.announces = announces
        self.events: list[dict] = []  # with contents in place of hashes

    def match(self, salt: bytes, tokens: list[int], max_pages: int) -> list[int]:
        pages: list[int] = []
        for column in range(max_pages):
            content = (salt, tuple(tokens[: (column + 1) * self.page_size]))
            if content not in self.page_of:
                break
            pages.append(self.page_of[content])
        return pages

    def acquire(self, page: int) -> None:
        if self.references[page] == 0:
            self.unreferenced.remove(page)
        self.references[page] += 1

    def insert(self, content: Content, page: int) -> None:
        self.page_of[content] = page
        self.references[page] = 1
        self._announce_stored(content)

    def release(self, page: int) -> None:
        self.references[page] -= 1
        if self.references[page] == 0:
            self.unreferenced.append(page)

    def evict(self) -> int:
        page, content = self._remove_oldest()
        self._announce_removed(content)
        return page

    def clear(self) -> list[int]:
        """The pages that are free now, least recently used first."""
        pages = [self._remove_oldest()[0] for _ in list(self.unreferenced)]
        if self.announces:
            self.events.append({"type": "AllBlocksCleared"})
        return pages

    def _remove_oldest(self) -> tuple[int, Content]:
        page = self.unreferenced.pop(0)
        content = next(c for c, cached in self.page_of.items() if cached == page)
        del self.page_of[content], self.references[page]
        return page, content

    def _announce_stored(self, content: Content) -> None:
        salt, tokens = content
        if not (self.announces and is_text(salt)):
            return
        before, own = tokens[: -self.page_size], tokens[-self.page_size :]
        parent = (salt, before) if before else None
        last = self.events[-1] if self.events else {"type": None}
        if last["type"] == "BlockStored" and last["block_hashes"][-1] == parent:
            last["block_hashes"] += [content]
            last["token_ids"] += own
            return
        event = {
            "type": "BlockStored",
            "block_hashes": [content],
            "parent_block_hash": parent,
            "token_ids": list(own),
            "block_size": self.page_size,
            "medium": "GPU",
        }
        self.events.append(event | ({"cache_salt": salt.decode()} if salt else {}))

    def _announce_removed(self, content: Content) -> None:
        if not (self.announces and is_text(content[0])):
            return
        if not (self.events and self.events[-1]["type"] == "BlockRemoved"):
            self.events.append({"type": "BlockRemoved", "block_hashes": [], "medium": "GPU"})
        self.events[-1]["block_hashes"] += [content]


def is_text(salt: bytes) -> bool:
    """A salt that is no UTF-8 text cannot travel in an event."""
    try:
        salt.decode()
    except UnicodeDecodeError:
        return False
    return True
