# SPDX-License-Identifier: MIT
"""Limits of control groups, from trees of files such as the kernel shows."""

from collections.abc import Callable
from pathlib import Path

import pytest
from ts_kernels import cgroup

Machine = Callable[..., None]
GIB = 1 << 30
NO_LIMIT_V1 = "9223372036854771712"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`machine(membership, files)`: as /proc/self/cgroup says, and what is in /sys/fs/cgroup."""

    def build(membership: str, files: dict[str, str]) -> None:
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        monkeypatch.setattr(cgroup, "MOUNT", tmp_path / "mount")
        monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "membership")

    return build


def test_without_a_limit_there_is_none(machine: Machine) -> None:
    machine("0::/user\n", {"user/cpu.max": "max 100000", "user/memory.max": "max"})
    assert cgroup.cpu_quota() is None
    assert cgroup.memory_left() is None


def test_without_control_groups_there_is_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "missing")
    assert cgroup.cpu_quota() is None
    assert cgroup.memory_left() is None


def test_a_container_that_sees_its_group_as_the_root(machine: Machine) -> None:
    machine(
        "0::/\n",
        {"cpu.max": "200000 100000", "memory.max": str(4 * GIB), "memory.current": str(GIB)},
    )
    assert cgroup.cpu_quota() == 2.0
    assert cgroup.memory_left() == 3 * GIB


def test_the_least_limit_on_the_way_to_the_root_counts(machine: Machine) -> None:
    machine(
        "0::/pod/container\n",
        {
            "pod/cpu.max": "150000 100000",
            "pod/container/cpu.max": "400000 100000",
            "pod/memory.max": str(8 * GIB),
            "pod/memory.current": str(7 * GIB),
            "pod/container/memory.max": str(4 * GIB),
            "pod/container/memory.current": str(2 * GIB),
            "other/cpu.max": "1000 100000",
        },
    )
    assert cgroup.cpu_quota() == 1.5
    assert cgroup.memory_left() == GIB


def test_version_1_has_a_tree_for_each_controller(machine: Machine) -> None:
    machine(
        "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n0::/\n",
        {
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
            "cpu/docker/abc/cpu.cfs_quota_us": "50000",
            "cpu/docker/abc/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": NO_LIMIT_V1,
            "memory/memory.usage_in_bytes": str(GIB),
            "memory/docker/abc/memory.limit_in_bytes": str(2 * GIB),
            "memory/docker/abc/memory.usage_in_bytes": str(GIB // 2),
        },
    )
    assert cgroup.cpu_quota() == 0.5
    assert cgroup.memory_left() == 3 * GIB // 2


def test_a_path_of_another_namespace_is_read_at_the_root(machine: Machine) -> None:
    machine("0::/../../pod\n", {"cpu.max": "300000 100000"})
    assert cgroup.cpu_quota() == 3.0


def test_a_group_that_has_taken_more_than_its_limit_leaves_nothing(machine: Machine) -> None:
    machine("0::/\n", {"memory.max": "100", "memory.current": "150"})
    assert cgroup.memory_left() == 0


def test_this_machines_own_files_are_read() -> None:
    quota, left = cgroup.cpu_quota(), cgroup.memory_left()
    assert quota is None or quota > 0
    assert left is None or left >= 0
