# SPDX-License-Identifier: MIT
"""KV events, slow and obvious; see scheduler_model.py.

Events name pages by their content where the C++ gives a hash.
"""

from __future__ import annotations

from typing import Any, Literal

# What a page holds: (salt, every token from the first to the page's last).
Content = tuple[bytes, tuple[int, ...]]
Medium = Literal["GPU", "CPU_TIER1"]
Event = dict[str, Any]


class KvEventsModel:
    """What happened since the last call of `take`, in order; a run of pages is one event."""

    def __init__(self, page_size: int, announces: bool) -> None:
        self.page_size = page_size
        self.announces = announces
        self.events: list[Event] = []

    def take(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def stored(self, content: Content, medium: Medium = "GPU") -> None:
        salt, tokens = content
        if not (self.announces and is_text(salt)):
            return
        before, own = tokens[: -self.page_size], tokens[-self.page_size :]
        parent = (salt, before) if before else None
        last: Event = self.events[-1] if self.events else {"type": None}
        if (
            last["type"] == "BlockStored"
            and last["medium"] == medium
            and last["block_hashes"][-1] == parent
        ):
            last["block_hashes"] += [content]
            last["token_ids"] += own
            return
        event: Event = {
            "type": "BlockStored",
            "block_hashes": [content],
            "parent_block_hash": parent,
            "token_ids": list(own),
            "block_size": self.page_size,
            "medium": medium,
        }
        self.events.append(event | ({"cache_salt": salt.decode()} if salt else {}))

    def removed(self, content: Content, medium: Medium = "GPU") -> None:
        if not (self.announces and is_text(content[0])):
            return
        last: Event = self.events[-1] if self.events else {"type": None}
        if not (last["type"] == "BlockRemoved" and last["medium"] == medium):
            self.events.append({"type": "BlockRemoved", "block_hashes": [], "medium": medium})
        self.events[-1]["block_hashes"] += [content]

    def cleared(self) -> None:
        if self.announces:
            self.events.append({"type": "AllBlocksCleared"})


def is_text(salt: bytes) -> bool:
    """A salt that is no UTF-8 text cannot travel in an event."""
    try:
        salt.decode()
    except UnicodeDecodeError:
        return False
    return True
