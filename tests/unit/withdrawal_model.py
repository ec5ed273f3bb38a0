# SPDX-License-Identifier: MIT
"""What is taken out of the cache when a request fails, slow and obvious; see scheduler_model.py.

Pages keep their places, but get a name that no prompt has: so nobody finds them.
"""

from __future__ import annotations

import itertools

from kv_events_model import Content

_WITHDRAWN = b"withdrawn"  # compared by identity, so no salt of a request is the same
_serials = itertools.count()


def is_withdrawn(content: Content) -> bool:
    return content[0] is _WITHDRAWN


def continues(other: Content, content: Content) -> bool:
    """It is that content, or has it before its own."""
    same_salt = other[0] == content[0] and is_withdrawn(other) == is_withdrawn(content)
    return same_salt and other[1][: len(content[1])] == content[1]


class Withdrawal:
    """Of one content and whatever continues it."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._names: dict[Content, Content] = {}

    def takes(self, content: Content) -> bool:
        return continues(content, self._content)

    def name(self, content: Content) -> Content:
        """Its name from now on."""
        if not self.takes(content):
            return content
        if content not in self._names:
            self._names[content] = (_WITHDRAWN, (next(_serials), *content[1]))
        return self._names[content]
