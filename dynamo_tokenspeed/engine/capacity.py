# SPDX-License-Identifier: MIT
"""How many pages and threads the engine gets, from the flags, the model, the machine."""

from __future__ import annotations

from pathlib import Path

import ts_kernels
from ts_kernels import cgroup

from dynamo_tokenspeed.protocol import EngineConfig

CPU_DEFAULT_BYTES = 512 << 20
CPU_SHARE_OF_AVAILABLE = 0.5
MIB = 1 << 20


class CapacityError(Exception):
    """The machine or the flags leave no room for one sequence: one sentence."""


def num_pages(config: EngineConfig, max_model_len: int, bytes_per_page: int) -> int:
    """Pages of the KV pool.

    `--num-pages` or `--kv-cache-memory` decide when given. Otherwise a CPU worker
    takes 512 MiB, or what one sequence of `max_model_len` needs if that is more,
    but at most half of the memory that is available.
    """
    page_size = config.page_size
    per_sequence = -(-max_model_len // page_size)
    if config.num_pages is not None:
        if config.num_pages < per_sequence:
            raise CapacityError(
                f"--num-pages {config.num_pages} holds {config.num_pages * page_size} tokens, "
                f"but one sequence may have {max_model_len}: "
                f"give at least {per_sequence} pages or lower --max-model-len"
            )
        return config.num_pages

    needed = per_sequence * bytes_per_page
    available = available_memory()
    if config.kv_cache_bytes is not None:
        granted, flag = config.kv_cache_bytes, "--kv-cache-memory"
    else:
        granted = min(max(CPU_DEFAULT_BYTES, needed), int(available * CPU_SHARE_OF_AVAILABLE))
        flag = "half of the available memory"
    if granted < needed:
        raise CapacityError(
            f"one sequence of {max_model_len} tokens needs {needed / MIB:.0f} MiB of KV cache, "
            f"but {flag} is {granted / MIB:.0f} MiB: "
            "raise --kv-cache-memory or lower --max-model-len"
        )
    if granted > available:
        raise CapacityError(
            f"--kv-cache-memory asks for {granted / MIB:.0f} MiB, "
            f"but only {available / MIB:.0f} MiB of memory are available: lower it"
        )
    return granted // bytes_per_page


def num_host_pages(config: EngineConfig, num_pages: int, bytes_per_page: int) -> int:
    """Pages of the host tier, beside a KV pool of `num_pages`. `--kv-offloading-size` decides."""
    if not config.kv_offloading_bytes:
        return 0
    if config.kv_offloading_bytes < bytes_per_page:
        raise CapacityError(
            f"--kv-offloading-size {config.kv_offloading_bytes} is in bytes and holds not one page "
            f"of {bytes_per_page}: give a size such as 4GiB, or leave it out"
        )
    in_host_memory = num_pages * bytes_per_page if config.device == "cpu" else 0
    available = available_memory() - in_host_memory
    if config.kv_offloading_bytes > available:
        beside = " beside the KV cache" if in_host_memory else ""
        raise CapacityError(
            f"--kv-offloading-size asks for {config.kv_offloading_bytes / MIB:.0f} MiB, but only "
            f"{max(0, available) / MIB:.0f} MiB of memory are available{beside}: lower it"
        )
    return config.kv_offloading_bytes // bytes_per_page


def num_threads(config: EngineConfig) -> int:
    """Threads that compute on the CPU: `--num-threads`, or one for each CPU that is ours."""
    if config.num_threads is None:
        return ts_kernels.usable_cpus()
    if config.num_threads > ts_kernels.MAX_THREADS:
        raise CapacityError(
            f"--num-threads {config.num_threads} is more than the {ts_kernels.MAX_THREADS} that "
            "the kernels can use: lower it, or leave it out for the CPUs that this process may use"
        )
    return config.num_threads


def available_memory() -> int:
    """Bytes this process may still take: the machine's, or its cgroup's if that is less."""
    available, left = _meminfo_available(), cgroup.memory_left()
    return available if left is None else min(available, left)


def _meminfo_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise CapacityError("/proc/meminfo does not say how much memory is available: give --num-pages")
