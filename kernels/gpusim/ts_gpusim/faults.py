# SPDX-License-Identifier: MIT
"""What the machine raises about a kernel that does wrong."""

from __future__ import annotations


class Fault(RuntimeError):
    """A sentence, then where it happened. `kind`: such as out-of-bounds, deadlock, mbarrier."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(f"{kind}: {sentence}")
        self.kind = kind
