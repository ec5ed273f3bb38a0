# SPDX-License-Identifier: MIT
"""Which launches a device takes: what CUDA refuses before it runs anything."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ts_gpusim.faults import LaunchError
from ts_gpusim.launch import Dim3, Launch
from ts_gpusim.modules import kernel_of, module_of, static_shared_bytes
from ts_gpusim.properties import (
    MAX_BLOCK,
    MAX_CLUSTER,
    MAX_GRID,
    MAX_THREADS_PER_BLOCK,
    SHARED_BYTES_PER_BLOCK_OPT_IN,
    DeviceProperties,
)


def admit(launch: Launch, device: DeviceProperties) -> Launch:
    """The launch, as the device runs it: with the cluster that the kernel itself requires, and one
    block on an SM. LaunchError says why not."""
    kernel = kernel_of(launch.ptx, launch.kernel)
    required = kernel.required_cluster
    if required is not None and launch.cluster == (1, 1, 1):
        launch = replace(launch, cluster=required)
    static = static_shared_bytes(launch.ptx, launch.kernel)
    if reason := (
        _wrong_target(module_of(launch.ptx).target, device)
        or _not_three("grid", launch.grid)
        or _not_three("block", launch.block)
        or _not_three("cluster", launch.cluster)
        or _out_of_limits("grid", launch.grid, MAX_GRID)
        or _out_of_limits("block", launch.block, MAX_BLOCK)
        or _wrong_block(launch.block, kernel.required_threads, kernel.max_threads)
        or _wrong_cluster(launch, required)
        or _too_much_shared(launch.shared_bytes, static)
    ):
        raise LaunchError(f"kernel {launch.kernel} cannot be launched: {reason}")
    return replace(launch, resident_blocks=device.sms)


def _wrong_target(target: str, device: DeviceProperties) -> str | None:
    if device.runs(target):
        return None
    return (
        f"it is compiled for {target}, and the device is {device.arch}: compile it for "
        f"{device.arch}, or choose another device"
    )


def _not_three(what: str, size: object) -> str | None:
    if (
        isinstance(size, tuple)
        and len(size) == 3
        and all(isinstance(n, int) and not isinstance(n, bool) for n in size)
    ):
        return None
    return f"{what} is {size!r}, but it must be a tuple of three ints, such as (4, 1, 1)"


def _out_of_limits(what: str, size: Dim3, limit: Dim3) -> str | None:
    if all(1 <= n <= most for n, most in zip(size, limit, strict=True)):
        return None
    return f"{what} {size} is not between (1, 1, 1) and {limit}"


def _wrong_block(block: Dim3, required: Dim3 | None, most: Dim3 | None) -> str | None:
    threads = prod(block)
    if threads > MAX_THREADS_PER_BLOCK:
        return f"block {block} has {threads} threads, and a block has at most 1024"
    if required is not None and block != required:
        return f"block is {block}, and the kernel requires {required} (.reqntid)"
    if most is not None and threads > prod(most):
        return f"block {block} has {threads} threads, and the kernel takes {prod(most)} (.maxntid)"
    return None


def _wrong_cluster(launch: Launch, required: Dim3 | None) -> str | None:
    blocks = prod(launch.cluster)
    if not 1 <= min(launch.cluster) <= blocks <= MAX_CLUSTER:
        return f"cluster {launch.cluster} has {blocks} blocks, and a cluster has 1 to {MAX_CLUSTER}"
    if required is not None and launch.cluster != required:
        return f"cluster is {launch.cluster}, and the kernel requires {required}"
    if any(n % size for n, size in zip(launch.grid, launch.cluster, strict=True)):
        return (
            f"grid {launch.grid} is no multiple of cluster {launch.cluster}: round it up, and let "
            "blocks that are too many return"
        )
    return None


def _too_much_shared(dynamic: int, static: int) -> str | None:
    if not isinstance(dynamic, int) or dynamic < 0:
        return f"it wants {dynamic!r} bytes of dynamic shared memory, which is no number of bytes"
    if dynamic + static <= SHARED_BYTES_PER_BLOCK_OPT_IN:
        return None
    return (
        f"it wants {dynamic + static} bytes of shared memory ({dynamic} dynamic, {static} its "
        f"own), and a block has at most {SHARED_BYTES_PER_BLOCK_OPT_IN}: take smaller tiles, or "
        "fewer stages of them"
    )
