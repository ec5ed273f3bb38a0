# SPDX-License-Identifier: MIT
"""Saved launches on a Hopper GPU, and how its results differ from those of the software GPU."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from cuda_driver import Driver, DriverError, LaunchConfig, TensorMap, launch_config
from saved_launch import Difference, Parameter, SavedLaunch, differences

HOPPER = (9, 0)
_GUARD = 256  # bytes after each buffer, which must stay as they are
_PATTERN = 0xA5

# PTX ISA 9.7.9.26 "tensormap.replace", values of .elemtype.
_ELEMENT_TYPES = (
    "u8", "u16", "u32", "s32", "u64", "s64", "f16", "f32", "f32.ftz", "f64", "bf16", "tf32",
    "tf32.ftz",
)  # fmt: skip


class Gpu(Protocol):
    """What cuda_driver.Driver has, and tests have in its place."""

    def allocate(self, size: int) -> int: ...
    def free(self, address: int) -> None: ...
    def write(self, address: int, content: np.ndarray) -> None: ...
    def read(self, address: int, size: int) -> np.ndarray: ...
    def tensor_map(self, address: int, described: TensorMap) -> bytes: ...
    def run(self, ptx: str, kernel: str, config: LaunchConfig, parameters: list[bytes]) -> None: ...


def hopper() -> Driver | str:
    """The GPU, or a sentence that says why there is none."""
    try:
        driver = Driver()
    except OSError:
        return "no CUDA driver is installed here: nothing was compared with a chip"
    except DriverError as error:
        return f"no GPU can be used here ({error}): nothing was compared with a chip"
    if driver.capability != HOPPER:
        major, minor = driver.capability
        name = driver.name
        driver.close()
        return (
            f"{name} is sm_{major}{minor}, and these kernels are for sm_90a: nothing was compared"
        )
    return driver


def tensor_map_of(value: bytes) -> TensorMap:
    """What the 128 bytes were encoded from."""
    words = [int(word) for word in np.frombuffer(value, np.uint32)]
    rank = (words[2] >> 4 & 7) + 1
    return TensorMap(
        type=_ELEMENT_TYPES[words[2] >> 7 & 15],
        sizes=[words[8 + i] + 1 for i in range(rank)],
        strides=[
            (words[2 + i] | (words[7] >> 4 * (i - 1) & 15) << 32) << 4 for i in range(1, rank)
        ],
        box=[
            (words[13] >> 24 if i == 0 else words[14] >> 8 * (i - 1) & 255) + 1 for i in range(rank)
        ],
        swizzle=words[2] >> 13 & 3,
    )


def compare(saved: SavedLaunch, gpu: Gpu) -> list[Difference]:
    """One for each buffer that the launch writes, and for each that it must not write but did."""
    addresses = [gpu.allocate(buffer.before.size + _GUARD) for buffer in saved.buffers]
    guard = np.full(_GUARD, _PATTERN, np.uint8)
    try:
        for address, buffer in zip(addresses, saved.buffers, strict=True):
            gpu.write(address, np.concatenate([buffer.before, guard]))
        config = launch_config(saved.grid, saved.block, saved.cluster, saved.shared_bytes)
        parameters = [_parameter(parameter, addresses, gpu) for parameter in saved.parameters]
        gpu.run(saved.ptx, saved.kernel, config, parameters)
        found = []
        for address, buffer in zip(addresses, saved.buffers, strict=True):
            content = gpu.read(address, buffer.before.size + _GUARD)
            if not np.array_equal(content[-_GUARD:], guard):
                raise DriverError(f"{saved.name} wrote past the end of {buffer.name}")
            found.append(content[:-_GUARD])
        return differences(saved, found)
    finally:
        for address in addresses:
            gpu.free(address)


def _parameter(parameter: Parameter, addresses: list[int], gpu: Gpu) -> bytes:
    value = parameter.at(addresses)
    if not parameter.is_tensor_map:
        return value
    address = int.from_bytes(value[:8], "little")
    return gpu.tensor_map(address, tensor_map_of(value))
