# SPDX-License-Identifier: MIT
"""What the control groups of this process leave it: its own group's limits and those around it.

A limit holds for everything below it, and a container or a slice may set one at any level: so every
group from the process's own up to the root is asked, and the least answer counts. Both versions
are read: in version 2 there is one tree, in version 1 one for each controller.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")  # lines of `number:controllers:path`; version 2: `0::path`


def cpu_quota() -> float | None:
    """CPUs' worth of time that this process may use; None: as many as it may run on."""
    quotas = [
        quota
        for group in _groups("cpu")
        for quota in (
            _ratio(_words(group / "cpu.max")),
            _ratio(_words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")),
        )
        if quota is not None
    ]
    return min(quotas, default=None)


def memory_left() -> int | None:
    """Bytes that this process may still take; None: as many as the machine has."""
    left = [
        max(0, limit - used)
        for group in _groups("memory")
        for limit, used in (
            (_number(group / "memory.max"), _number(group / "memory.current")),
            (_number(group / "memory.limit_in_bytes"), _number(group / "memory.usage_in_bytes")),
        )
        if limit is not None and used is not None
    ]
    return min(left, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """The groups that may limit `controller`, as folders; some may not be there.

    A container often sees its own group as the root of the mount, whatever the path says.
    """
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            trees = [MOUNT, MOUNT / "unified"]
        elif controller in controllers.split(","):
            trees = [MOUNT / controller]
        else:
            continue
        names = [] if ".." in path else path.strip("/").split("/")
        for tree in trees:
            for depth in range(len(names) + 1):
                yield tree.joinpath(*names[:depth])


def _ratio(words: list[str]) -> float | None:
    """`quota period`, in microseconds; None without a quota (`max` or -1)."""
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _number(path: Path) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
